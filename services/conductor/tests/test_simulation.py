"""Loops in a simulated platform on a real database, killed between any two steps, with lost and repeated events."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from conductor_builders import DATASET, LOOP, NAMES, PROJECT
from conductor_simulation import SimulatedPlatform
from prometheus_client import CollectorRegistry
from vesta_common.clock import ManualClock
from vesta_common.errors import Aborted, FailedPrecondition, Unavailable
from vesta_common.storage.postgres import Connection, Postgres
from vesta_conductor import store
from vesta_conductor.execution.driver import Driver
from vesta_conductor.metrics import ConductorMetrics
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.conductor.v1 import Loop, LoopPolicy, LoopStatus, Project, Round

TURNS_MAX = 2500
BUDGET = 90


class Killed(BaseException):
    """Simulates a kill of the process."""


class Mortal:
    """A database and services with random kills and failures."""

    def __init__(self, postgres: Postgres, chance: random.Random, *, dying: float, away: float) -> None:
        self._postgres = postgres
        self._chance = chance
        self._dying = dying
        self._away = away

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that is randomly killed before, within or after it."""
        self.die()
        with self._postgres.transaction() as connection:
            yield connection
            self.die()
        self.die()

    def before(self, method: str) -> None:
        self.die()
        if self._chance.random() < self._away:
            raise Unavailable(f"{method} is away")

    def after(self, method: str) -> None:
        self.die()
        if self._chance.random() < self._away:
            raise Unavailable(f"the answer of {method} was lost")

    def die(self) -> None:
        if self._chance.random() < self._dying:
            raise Killed


@pytest.fixture
def postgres(postgres_url: str, postgres_schema: str) -> Iterator[Postgres]:
    database = Postgres(postgres_url, postgres_schema).open()
    database.migrate("vesta_conductor")
    yield database
    database.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def create(postgres: Postgres, clock: ManualClock) -> Callable[..., None]:
    """Creates a Loop with this policy."""

    def create(**policy: object) -> None:
        defaults = {
            "dataset": DATASET,
            "label_budget": BUDGET,
            "batch_size": 20,
            "test_labels": 15,
            "control_share": 0.2,
        }
        wanted = Loop(name=LOOP, policy=LoopPolicy(**{**defaults, **policy}), status=LoopStatus())
        with postgres.transaction() as connection:
            store.insert_project(connection, Project(name=PROJECT), clock.now())
            store.insert_loop(connection, wanted, PROJECT, clock.now())

    return create


def turn_until(
    postgres: Postgres, platform: SimulatedPlatform, mortal: Mortal, phase: LoopStatus.Phase.ValueType
) -> Loop:
    """Reconciles the Loop until it ends, despite kills."""
    driver = Driver(
        mortal, platform.peers(mortal.before, mortal.after), platform.clock, ConductorMetrics(CollectorRegistry())
    )  # type: ignore[arg-type]
    for _ in range(TURNS_MAX):
        try:
            rest = driver.turn(LOOP)
        except Killed:
            continue  # another worker takes over immediately
        if rest == timedelta(0):
            continue
        with postgres.transaction() as connection:
            loop = store.find_loop(connection, LOOP)
        assert loop is not None
        if rest is not None and loop.status.phase == phase:
            return loop
        platform.live()
    raise AssertionError(f"still {loop.status}")


def test_the_label_saving_of_a_loop_that_has_ended_arrives_with_its_curve(
    postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    chance = random.Random(3)
    platform = SimulatedPlatform(clock, chance)
    platform.measures_curves = False
    create()
    mortal = Mortal(postgres, chance, dying=0, away=0)
    pending = turn_until(postgres, platform, mortal, LoopStatus.EXHAUSTED).status.label_saving
    assert (pending.pending, pending.HasField("random_labels")) == (True, False)

    platform.measures_curves = True
    platform.live()

    measured = turn_until(postgres, platform, mortal, LoopStatus.EXHAUSTED).status.label_saving
    assert (measured.pending, measured.random_labels.value) == (False, 200)
    assert measured.saved_labels == 200 - pending.spent_labels


def assert_once(postgres: Postgres, platform: SimulatedPlatform, loop: Loop) -> None:
    """Checks that everything was created, decided and published once."""
    assert set(platform.made.values()) == {1}, platform.made
    with postgres.transaction() as connection:
        decisions = [decision for _, decision in store.list_decisions(connection, LOOP, store.SEQUENCE_MAX, 1000)]
        told = connection.execute("SELECT topic, headers FROM outbox ORDER BY id").fetchall()
    actions = [
        (decision.action, decision.round)
        for decision in decisions
        if decision.action in {"snapshot", "promote", "turn"}
    ]
    assert len(actions) == len(set(actions))
    assert len(told) == len(decisions) + len([r for r in loop.status.rounds if r.HasField("end_time")])
    asked = [decision for decision in decisions if decision.action == "ask"]
    assert sum(int(decision.reason.split()[0]) for decision in asked) == len(platform.tasks)
    trained = [decision.resource for decision in decisions if decision.action in {"train", "embed"}]
    assert sorted(trained) == sorted(platform.runs)


@pytest.mark.parametrize("seed", range(3))
def test_a_loop_spends_its_budget_and_ends_with_a_model(
    seed: int, postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    chance = random.Random(seed)
    platform = SimulatedPlatform(clock, chance)
    create()
    loop = turn_until(postgres, platform, Mortal(postgres, chance, dying=0, away=0), LoopStatus.EXHAUSTED)
    status = loop.status
    assert status.labels_spent == BUDGET == len(platform.tasks)
    assert all(task.state == Task.ACCEPTED for task in platform.tasks.values())
    assert status.champion == platform.deployments[status.deployment].stable_version != ""
    assert status.champion_metrics.item_count == 100
    assert status.live_accuracy_count > 0
    assert status.label_saving.spent_labels > 0
    ended = [found for found in status.rounds if found.HasField("end_time")]
    assert [found.number for found in status.rounds] == list(range(1, len(ended) + 2))
    assert all(
        found.verdict.passed and found.HasField("label_to_model") and 0.4 < found.auto_share <= 0.5 for found in ended
    )
    assert [found.label_count for found in ended] == sorted(found.label_count for found in ended)
    assert ended[-1].label_count == platform.labelled("train")
    assert_once(postgres, platform, loop)


def test_a_loop_of_boxes_trains_detectors_and_reports_their_average_precision(
    postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    chance = random.Random(4)
    platform = SimulatedPlatform(clock, chance, worse_models=0.3, task_type=TaskType.TASK_TYPE_DETECTION)
    create()
    mortal = Mortal(postgres, chance, dying=0.01, away=0.01)
    loop = turn_until(postgres, platform, mortal, LoopStatus.EXHAUSTED)
    assert loop.status.labels_spent == BUDGET == len(platform.tasks)
    assert {run.recipe for run in platform.runs.values()} == {
        f"{PROJECT}/recipes/detection",
        f"{PROJECT}/recipes/embedding",
    }
    assert {campaign.task_type for campaign in platform.campaigns.values()} == {TaskType.TASK_TYPE_DETECTION}
    ended = [found for found in loop.status.rounds if found.HasField("end_time")]
    assert all("mAP@50" in found.verdict.reason for found in ended)
    assert all(found.metrics.mean_average_precision_50.value >= 0.6 for found in ended)
    assert loop.status.champion_metrics.mean_average_precision_50.value >= 0.6
    # The simulation predicts one concept for each item, at the right place.
    assert loop.status.live_accuracy_count > 0
    assert 0 < loop.status.live_accuracy.value < 1
    assert_once(postgres, platform, loop)


@pytest.mark.parametrize("seed", range(8))
def test_crashes_and_unavailable_peers_cause_no_duplicate_and_no_lost_step(
    seed: int, postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    chance = random.Random(100 + seed)
    platform = SimulatedPlatform(clock, chance, worse_models=0.3, settle=bool(seed % 2))
    create()
    loop = turn_until(postgres, platform, Mortal(postgres, chance, dying=0.03, away=0.02), LoopStatus.EXHAUSTED)
    assert loop.status.labels_spent == BUDGET == len(platform.tasks)
    ended = [found for found in loop.status.rounds if found.HasField("end_time")]
    assert ended[-1].label_count == platform.labelled("train")
    assert_once(postgres, platform, loop)


def test_failing_trainings_block_the_loop_with_the_reason(
    postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    chance = random.Random(7)
    platform = SimulatedPlatform(clock, chance)
    create()
    mortal = Mortal(postgres, chance, dying=0, away=0)
    turn_until(postgres, platform, mortal, LoopStatus.LABELLING)
    platform.failing_runs = 1.0
    loop = turn_until(postgres, platform, mortal, LoopStatus.BLOCKED)
    assert "the simulation wanted it so" in loop.status.message
    failed = [name for name, run in platform.runs.items() if run.error]
    assert len(failed) == 2
    platform.failing_runs = 0.0
    with postgres.transaction() as connection:
        loop.display_name = "Changed"
        store.update_loop(connection, loop, policy_changed=True, now=clock.now())
    assert turn_until(postgres, platform, mortal, LoopStatus.EXHAUSTED).status.champion


def test_a_larger_budget_resumes_an_exhausted_loop(
    postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    chance = random.Random(8)
    platform = SimulatedPlatform(clock, chance)
    create(label_budget=40)
    mortal = Mortal(postgres, chance, dying=0, away=0)
    loop = turn_until(postgres, platform, mortal, LoopStatus.EXHAUSTED)
    assert loop.status.labels_spent == 40
    loop.policy.label_budget = 60
    with postgres.transaction() as connection:
        store.update_loop(connection, loop, policy_changed=True, now=clock.now())
    assert turn_until(postgres, platform, mortal, LoopStatus.EXHAUSTED).status.labels_spent == 60


def test_a_paused_loop_does_nothing_until_it_is_resumed(
    postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    chance = random.Random(9)
    platform = SimulatedPlatform(clock, chance)
    create()
    mortal = Mortal(postgres, chance, dying=0, away=0)
    loop = turn_until(postgres, platform, mortal, LoopStatus.LABELLING)
    made = sum(platform.made.values())
    loop.paused = True
    with postgres.transaction() as connection:
        store.update_loop(connection, loop, policy_changed=True, now=clock.now())
    driver = Driver(postgres, platform.peers(), clock, ConductorMetrics(CollectorRegistry()))
    for _ in range(30):
        assert driver.turn(LOOP) == timedelta(seconds=60)
        platform.live()
    assert sum(platform.made.values()) == made
    loop.paused = False
    with postgres.transaction() as connection:
        store.update_loop(connection, loop, policy_changed=True, now=clock.now())
    assert turn_until(postgres, platform, mortal, LoopStatus.EXHAUSTED).status.labels_spent == BUDGET


def test_a_peer_that_keeps_rejecting_blocks_the_loop_with_its_message(
    postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    platform = SimulatedPlatform(clock, random.Random(10))
    create()

    def refuse(method: str) -> None:
        if method == "CreateCampaign":
            raise FailedPrecondition("the project is full; delete a campaign", reason="PROJECT_FULL")

    driver = Driver(postgres, platform.peers(before=refuse), clock, ConductorMetrics(CollectorRegistry()))
    phases = []
    for failures in range(4):
        assert driver.turn(LOOP, failures) is None
        with postgres.transaction() as connection:
            loop = store.find_loop(connection, LOOP)
        assert loop is not None
        assert "the project is full; delete a campaign (PROJECT_FULL)" in loop.status.message
        phases.append(loop.status.phase)
    assert phases[0] != LoopStatus.BLOCKED
    assert phases[3] == LoopStatus.BLOCKED
    assert Driver(postgres, platform.peers(), clock, ConductorMetrics(CollectorRegistry())).turn(LOOP) == timedelta(0)


@pytest.mark.parametrize(
    ("made", "phase"),
    [
        ("campaigns", LoopStatus.LABELLING),
        ("deployments", LoopStatus.LABELLING),
        ("runs", LoopStatus.TRAINING),
        ("snapshots", LoopStatus.TRAINING),
    ],
)
def test_deleted_resources_are_recreated_in_the_same_round(
    made: str,
    phase: LoopStatus.Phase.ValueType,
    postgres: Postgres,
    clock: ManualClock,
    create: Callable[..., None],
) -> None:
    chance = random.Random(11)
    platform = SimulatedPlatform(clock, chance, settle=False)
    create()
    mortal = Mortal(postgres, chance, dying=0, away=0)
    for _ in range(2):
        assert turn_until(postgres, platform, mortal, phase).status.rounds[-1].number == 1
        clock.advance(timedelta(seconds=1))
        getattr(platform, made).clear()
        if made == "campaigns":
            platform.tasks.clear()
        if made == "snapshots":
            platform.runs.clear()
    assert turn_until(postgres, platform, mortal, LoopStatus.EXHAUSTED).status.champion
    assert getattr(platform, made)


def test_a_second_attempt_continues_after_the_first_is_deleted(
    postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    chance = random.Random(12)
    platform = SimulatedPlatform(clock, chance)
    create()
    mortal = Mortal(postgres, chance, dying=0, away=0)
    turn_until(postgres, platform, mortal, LoopStatus.LABELLING)
    platform.failing_runs = 1.0
    while NAMES.run(1, 2) not in platform.runs:
        turn_until(postgres, platform, mortal, LoopStatus.TRAINING)
        platform.live()
    platform.failing_runs = 0.0
    del platform.runs[NAMES.run(1, 1)]
    loop = turn_until(postgres, platform, mortal, LoopStatus.EXHAUSTED)
    assert loop.status.rounds[0].training_run == NAMES.run(1, 2)
    assert NAMES.run(1, 1) not in platform.runs


def test_a_command_of_a_finished_round_is_not_repeated_after_a_pause(
    postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    """The response to the training's command is lost, the Loop is paused, and its round ends before it continues."""
    chance = random.Random(13)
    platform = SimulatedPlatform(clock, chance)
    create()
    mortal = Mortal(postgres, chance, dying=0, away=0)
    while len(rounds(postgres)) == 1:
        turn_until(postgres, platform, mortal, LoopStatus.LABELLING)
        platform.live()
    platform.worse_models = 1.0
    lost: list[str] = []

    def lose(method: str) -> None:
        if method == "CreateTrainingRun":
            lost.append(method)
            raise Unavailable("the answer was lost")

    losing = Driver(postgres, platform.peers(after=lose), clock, ConductorMetrics(CollectorRegistry()))
    while not lost:
        if losing.turn(LOOP) != timedelta(0):
            platform.live()
    pause(postgres, clock, paused=True)
    driver = Driver(postgres, platform.peers(), clock, ConductorMetrics(CollectorRegistry()))
    for _ in range(10):
        driver.turn(LOOP)
        platform.live()
    before = rounds(postgres)
    assert before[1].HasField("end_time")
    pause(postgres, clock, paused=False)
    driver.turn(LOOP)
    assert rounds(postgres)[1] == before[1]


def test_a_command_that_a_person_preceded_is_decided_again(
    postgres: Postgres, clock: ManualClock, create: Callable[..., None]
) -> None:
    platform = SimulatedPlatform(clock, random.Random(14))
    create()

    def abort(method: str) -> None:
        if method == "CreateCampaign":
            raise Aborted("the etag is stale")

    driver = Driver(postgres, platform.peers(before=abort), clock, ConductorMetrics(CollectorRegistry()))
    assert driver.turn(LOOP) is None
    with postgres.transaction() as connection:
        kept = store.load(connection, LOOP)
    assert kept is not None
    assert kept.pending is None


def pause(postgres: Postgres, clock: ManualClock, *, paused: bool) -> None:
    with postgres.transaction() as connection:
        loop = store.find_loop(connection, LOOP)
        assert loop is not None
        loop.paused = paused
        store.update_loop(connection, loop, policy_changed=True, now=clock.now())


def rounds(postgres: Postgres) -> list[Round]:
    with postgres.transaction() as connection:
        loop = store.find_loop(connection, LOOP)
    assert loop is not None
    return list(loop.status.rounds)
