"""Everything is killed while a loop turns, a folder grows and a camera films: all goes on, and each thing counts exactly once."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import pytest
from cameras import FRAME_TOPIC, open_streams
from small_loop import SmallLoop, patiently, set_up
from traffic import GrowingFolder, RestlessCamera, running
from vesta import Vesta
from vesta_admin.catalogue import topics
from vesta_common.events import dead_letters
from vesta_contracts.annotation.v1 import GetAgreementRequest, ListTasksRequest, Task
from vesta_contracts.conductor.v1 import ListDecisionsRequest, LoopStatus
from vesta_contracts.connection.v1 import CreateSourceRequest, FolderSource, Source
from vesta_contracts.datasets.v1 import CreateDatasetRequest, Dataset, DatasetCounts, GetDatasetRequest, Split
from vesta_contracts.pipelining.v1 import (
    GetPipelineRequest,
    GetStreamRequest,
    ListObservationsRequest,
    Observation,
    Stream,
    UpdatePipelineRequest,
)
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.own_engines, pytest.mark.timeout(2400)]

SEED = 20
BATCH, ROUNDS = 12, 3
BUDGET = BATCH * ROUNDS
FILES, PICTURES = 80, 20
HASTE_SECONDS_MAX = 0.2
PACE_SECONDS = 0.3
UNCERTAIN_PER_MINUTE_MAX = 6000  # more than the camera films: every uncertain frame is sent on
PATIENCE_SECONDS = 900
# Who dies when: each while it has something to do. What the loop does not come to in time dies while its last batch waits.
VICTIMS = {
    LoopStatus.LABELLING: ["annotation", "gateway", "postgres", "connection", "retention", "storage"],
    LoopStatus.TRAINING: ["training", "objects", "conductor"],
    LoopStatus.DEPLOYING: ["serving", "inference"],
    LoopStatus.SCORING: ["datasets", "events", "pipelining"],
}


@dataclass(frozen=True)
class Kill:
    """A program that was killed, and how far the loop was.

    Attributes:
        pid: the process that died; 0 where none ran.
        answers: given by the experts so far.
        champion: the version that answered.
    """

    program: str
    pid: int
    phase: LoopStatus.Phase.ValueType
    answers: int
    champion: str


class Killer:
    """Kills each program once with -9, in its phase of the loop; the next one when the last is back."""

    def __init__(self, platform: WholePlatform, small: SmallLoop) -> None:
        self._platform = platform
        self._small = small
        self._draw = random.Random(SEED)
        there = platform.platform.names  # Apache Kafka forgets by itself, without `retention`
        self._due = {phase: [name for name in names if name in there] for phase, names in VICTIMS.items()}
        self.kills: list[Kill] = []

    @property
    def is_done(self) -> bool:
        """Whether every program has been killed, and is back."""
        return not any(self._due.values())

    def may_answer(self, status: LoopStatus) -> bool:
        """The experts take their time, and give no answer of the last batch while somebody is still to die."""
        time.sleep(PACE_SECONDS)
        return self.is_done or status.labels_spent < BUDGET

    def kill(self, stop: threading.Event) -> None:
        """Kills until everything has been killed, or it is told to stop."""
        while not self.is_done and not stop.is_set():
            status = self._small.status()
            queue = self._due.get(status.phase, [])
            if status.phase == LoopStatus.LABELLING and status.labels_spent >= BUDGET:
                queue = next(names for names in self._due.values() if names)
            if queue:
                stop.wait(self._draw.uniform(0, HASTE_SECONDS_MAX))
                pid = self._platform.kill(queue[0])
                answers = self._small.experts.answer_count
                self.kills.append(Kill(queue[0], pid, status.phase, answers, status.champion))
                self._platform.wait_healthy(queue[0])
                queue.pop(0)  # only now: else the loop could be thought done with
            stop.wait(0.05)


@dataclass(frozen=True)
class Aftermath:
    """What there is when all has been killed, has come back, and has come to rest."""

    platform: WholePlatform
    small: SmallLoop
    status: LoopStatus
    kills: list[Kill]
    folder: GrowingFolder
    camera: RestlessCamera
    stream: str
    camera_dataset: str
    first_items: set[str]

    @property
    def owner(self) -> Vesta:
        """The platform's owner."""
        return self.small.owner

    def counts(self, dataset: str) -> DatasetCounts:
        """How much a dataset holds."""
        return self.owner.datasets.GetDataset(GetDatasetRequest(name=dataset)).counts

    def watched(self) -> Stream:
        """The camera's stream."""
        return self.owner.streams.GetStream(GetStreamRequest(name=self.stream))

    def observations(self) -> list[Observation]:
        """What was seen in its frames."""
        return list(
            self.owner.pages(self.owner.observations.ListObservations, ListObservationsRequest(parent=self.stream))
        )


@pytest.fixture(scope="module")
def aftermath(platform: WholePlatform, tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    """A loop that has turned to its end through the death of everything, with a folder and a camera beside it."""
    small = set_up(platform, tmp_path_factory.mktemp("samples"), images_per_class=30, budget=BUDGET, batch=BATCH)
    first_items = {item.name for item in small.items()}
    # Few at a time, so that kills fall between their answers.
    small.experts.lease_count = 2
    status = small.turn_until(lambda now: now.phase == LoopStatus.LABELLING, seconds=300)
    folder = _growing_folder(platform, small)
    stream, camera_dataset = _stream(small, status.deployment)
    camera = RestlessCamera(platform.broker, platform.topic(FRAME_TOPIC), stream, small.unused[-PICTURES:])
    killer = Killer(platform, small)
    with running(folder.grow), running(camera.watch), running(killer.kill):
        small.turn_until(lambda _: killer.is_done, PATIENCE_SECONDS, killer.may_answer)
    platform.wait_healthy()
    status = small.turn_until(lambda now: now.phase == LoopStatus.EXHAUSTED, PATIENCE_SECONDS)
    folder.bring_in_the_rest(seconds=120)
    return Aftermath(platform, small, status, killer.kills, folder, camera, stream, camera_dataset, first_items)


def _growing_folder(platform: WholePlatform, small: SmallLoop) -> GrowingFolder:
    """A folder whose pictures come to the test side, about which nobody is asked."""
    path = platform.home.inbox / f"{small.project.split('/')[1]}-growing"
    path.mkdir()
    source = Source(dataset=small.dataset, folder=FolderSource(path=str(path)), split=Split.SPLIT_TEST)
    made = small.owner.sources.CreateSource(
        CreateSourceRequest(parent=small.project, source_id="growing", source=source)
    )
    return GrowingFolder(small.owner, made.name, path, small.unused[:FILES])


def _stream(small: SmallLoop, deployment: str) -> tuple[str, str]:
    """A camera's stream, and the dataset into which its uncertain frames go."""
    taxonomy = small.owner.datasets.GetDataset(GetDatasetRequest(name=small.dataset)).taxonomy
    dataset = small.owner.datasets.CreateDataset(
        CreateDatasetRequest(parent=small.project, dataset_id="camera", dataset=Dataset(taxonomy=taxonomy))
    ).name
    (stream,) = open_streams(small.owner, small.project, dataset, deployment, ("yard",))
    pipeline = small.owner.pipelines.GetPipeline(GetPipelineRequest(name=stream.rpartition("/streams/")[0]))
    pipeline.uncertain_per_minute_max = UNCERTAIN_PER_MINUTE_MAX
    small.owner.pipelines.UpdatePipeline(UpdatePipelineRequest(pipeline=pipeline))
    return stream, dataset


def test_each_program_died_while_the_loop_turned(aftermath: Aftermath) -> None:
    kills = aftermath.kills
    assert sorted(kill.program for kill in kills) == sorted(aftermath.platform.platform.programs)
    assert all(kill.pid for kill in kills)
    phases = {kill.phase for kill in kills}
    assert LoopStatus.EXHAUSTED not in phases
    assert {LoopStatus.LABELLING, LoopStatus.TRAINING} < phases
    first, last = kills[0], kills[-1]
    assert first.answers < last.answers
    assert first.champion != last.champion  # labels were learnt from, and a model promoted, between them


def test_the_loop_came_to_its_end(aftermath: Aftermath) -> None:
    rounds = aftermath.status.rounds
    assert len([one for one in rounds if one.HasField("end_time")]) == ROUNDS
    assert aftermath.status.labels_spent == BUDGET
    owner = aftermath.owner
    decisions = list(
        owner.pages(owner.loops.ListDecisions, ListDecisionsRequest(parent=aftermath.small.loop, page_size=1000))
    )
    assert len({one.request_id for one in decisions}) == len(decisions)


def test_every_accepted_answer_is_in_the_dataset_once(aftermath: Aftermath) -> None:
    owner, small = aftermath.owner, aftermath.small
    request = ListTasksRequest(parent=aftermath.status.campaign)
    tasks: list[Task] = list(owner.pages(owner.tasks.ListTasks, request))
    assert [task.state for task in tasks] == [Task.ACCEPTED] * BUDGET
    by_item = {task.item: task for task in tasks}
    labelled = {item.name: item for item in small.items("labelled AND split = TRAIN")}
    assert len(by_item) == BUDGET
    assert labelled.keys() == by_item.keys()
    for name, item in labelled.items():
        assert item.accepted.task == by_item[name].name
        assert list(item.accepted.annotations) == list(by_item[name].accepted)
        assert list(item.accepted.annotations) == list(small.truth(name))
    assert aftermath.counts(small.dataset).train_labelled_count == BUDGET
    agreement = owner.campaigns.GetAgreement(GetAgreementRequest(name=aftermath.status.campaign))
    assert sum(one.submission_count for one in agreement.annotators) == BUDGET


def test_every_file_became_an_item_once_and_every_item_bears_the_champions_scores(aftermath: Aftermath) -> None:
    small, champion = aftermath.small, aftermath.status.champion
    item_count = len(aftermath.first_items) + aftermath.folder.placed
    _until(lambda: aftermath.counts(small.dataset).scored_count == item_count)
    counts = aftermath.counts(small.dataset)
    assert (counts.item_count, counts.embedded_count) == (item_count, item_count)
    assert counts.scored_model_version == champion
    items = small.items()
    assert {item.prediction.model_version for item in items} == {champion}


def test_every_frame_is_observed_at_most_once_and_none_is_forgotten(aftermath: Aftermath) -> None:
    last = aftermath.camera.show_one()
    _until(lambda: aftermath.watched().last_frame_time.ToDatetime(last.tzinfo) >= last)
    stream, observations = aftermath.watched(), aftermath.observations()
    times = [one.frame_time.ToDatetime(last.tzinfo) for one in observations]
    assert len(set(times)) == len(times) == stream.observed_count > 0
    assert set(times) <= set(aftermath.camera.sent)
    assert stream.rejected_count == 0
    handled = stream.observed_count + stream.dropped_count
    assert aftermath.camera.acknowledged <= handled <= len(aftermath.camera.sent)


def test_every_uncertain_frame_became_an_item_once(aftermath: Aftermath) -> None:
    _until(lambda: all(one.item for one in aftermath.observations() if one.prediction.uncertain))
    uncertain = [one for one in aftermath.observations() if one.prediction.uncertain]
    sent_on = {one.item for one in uncertain}
    assert "" not in sent_on
    assert len(sent_on) > 1
    assert {one.item for one in aftermath.observations() if one.item} == sent_on
    assert aftermath.counts(aftermath.camera_dataset).item_count == len(sent_on)


def test_nothing_was_set_aside_as_a_dead_letter(aftermath: Aftermath) -> None:
    broker = aftermath.platform.broker
    names = [aftermath.platform.topic(topic.name) for topic in topics() if topic.is_dead_letters]
    with ThreadPoolExecutor(len(names)) as pool:  # each waits for seconds whether more comes
        letters = list(pool.map(lambda name: list(dead_letters.read(broker, name)), names))
    assert [(letter.topic, letter.reason) for letter in chain.from_iterable(letters)] == []


def _until(holds: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not patiently(holds) and time.monotonic() < deadline:
        time.sleep(1)  # the conditions list hundreds of observations
