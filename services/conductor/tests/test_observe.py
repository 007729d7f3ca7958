"""Observation while the state changes."""

import random
from datetime import UTC, datetime, timedelta

from conductor_builders import DATASET, NAMES, NOW, a_history, a_label, a_policy, a_snapshot, version
from conductor_simulation import SimulatedPlatform
from vesta_common.clock import ManualClock
from vesta_conductor.execution.control_answers import ControlAnswers
from vesta_conductor.execution.observe import SETTLE, observe, shows_answer
from vesta_conductor.reconciliation.state import ObservedState
from vesta_conductor.task_types.classification import Classification
from vesta_conductor.task_types.detection import Detection
from vesta_contracts.annotation.v1 import BatchCreateTasksRequest, Campaign, CreateCampaignRequest, Task
from vesta_contracts.common.v1 import Annotation, ImageLabel, PixelBox
from vesta_contracts.datasets.v1 import AcceptedAnnotations, Item

ITEM = f"{DATASET}/items/train0000"


CLASSIFICATION = Classification()


def a_platform() -> SimulatedPlatform:
    """A platform with a campaign and one open task."""
    platform = SimulatedPlatform(ManualClock(NOW), random.Random(0))
    peers = platform.peers()
    peers.campaigns.CreateCampaign(
        CreateCampaignRequest(parent="projects/acme", campaign_id="vans", campaign=Campaign(dataset=DATASET))
    )
    peers.tasks.BatchCreateTasks(BatchCreateTasksRequest(parent=NAMES.campaign, tasks=[Task(item=ITEM)]))
    return platform


def accept(platform: SimulatedPlatform) -> None:
    """Submits an answer, which reaches the dataset later."""
    platform.chance.random = lambda: 0.0  # type: ignore[method-assign]
    platform.answer_tasks()


def look(platform: SimulatedPlatform, **hooks: object) -> ObservedState:
    peers = platform.peers(**hooks)  # type: ignore[arg-type]
    return observe(peers, NAMES, a_policy(test_labels=5), a_history(), ControlAnswers(), platform.clock.now())


def test_a_task_accepted_during_the_observation_is_counted() -> None:
    for moment in range(1, 12):
        platform = a_platform()
        calls = 0

        def accept_at(method: str, platform: SimulatedPlatform = platform, moment: int = moment) -> None:
            nonlocal calls
            calls += 1
            if calls == moment:
                accept(platform)

        observed = look(platform, before=accept_at)
        assert ITEM in {task.item for task in (*observed.undecided, *observed.accepted)}, moment


def test_an_answer_to_an_old_task_is_counted() -> None:
    platform = a_platform()
    platform.clock.advance(timedelta(days=3))
    accept(platform)
    observed = look(platform)
    assert [task.item for task in observed.accepted] == [ITEM]
    assert observed.unsettled


def test_an_answer_is_unsettled_until_the_dataset_has_it() -> None:
    platform = a_platform()
    accept(platform)
    assert look(platform).unsettled
    platform.deliver(platform.on_their_way)
    assert not look(platform).unsettled


def test_an_answer_that_arrives_during_the_observation_is_unsettled_or_counted() -> None:
    for moment in range(1, 16):
        platform = a_platform()
        accept(platform)
        calls = 0

        def deliver_at(method: str, platform: SimulatedPlatform = platform, moment: int = moment) -> None:
            nonlocal calls
            calls += 1
            if calls == moment:
                platform.deliver(platform.on_their_way)

        observed = look(platform, before=deliver_at)
        assert observed.dataset is not None
        assert observed.unsettled or observed.dataset.counts.train_labelled_count == 1, moment


def test_an_answer_overtaken_by_others_is_unsettled() -> None:
    platform = a_platform()
    tasks = [Task(item=f"{DATASET}/items/train{number:04}") for number in range(1, 30)]
    platform.peers().tasks.BatchCreateTasks(
        BatchCreateTasksRequest(parent=NAMES.campaign, tasks=tasks, request_id="others")
    )
    accept(platform)
    platform.deliver(platform.on_their_way[:-1])
    assert look(platform).unsettled


def test_settled_answers_are_requested_in_one_call() -> None:
    platform = a_platform()
    tasks = [Task(item=f"{DATASET}/items/train{number:04}") for number in range(1, 30)]
    request = BatchCreateTasksRequest(parent=NAMES.campaign, tasks=tasks, request_id="others")
    platform.peers().tasks.BatchCreateTasks(request)
    accept(platform)
    platform.deliver(platform.on_their_way)
    asked: list[str] = []
    observed = look(platform, before=asked.append)
    assert len(observed.accepted) == 30
    assert not observed.unsettled
    assert "GetItem" not in asked


def test_an_answer_that_never_arrives_is_awaited_for_at_most_a_minute() -> None:
    platform = a_platform()
    accept(platform)
    platform.clock.advance(SETTLE + timedelta(seconds=1))
    assert not look(platform).unsettled


def test_the_number_of_calls_depends_neither_on_unlabelled_items_nor_on_missing_runs() -> None:
    platform = a_platform()
    assert platform.labelled("test") == 0
    called: list[str] = []
    look(platform, before=called.append)
    assert "ListItems" not in called
    assert len(called) == len(set(called)) + 1, called  # two lists of tasks


def test_tasks_are_not_listed_during_training() -> None:
    platform = a_platform()
    platform.snapshots[NAMES.snapshot(1)] = a_snapshot()
    observed = look(platform)
    assert (observed.undecided, observed.accepted) == ((), ())
    assert observed.campaign is not None


def test_resources_missing_at_the_peers_are_none() -> None:
    observed = observe(
        SimulatedPlatform(ManualClock(NOW), random.Random(0)).peers(),
        NAMES,
        a_policy(),
        a_history(),
        ControlAnswers(),
        ManualClock(NOW).now(),
    )
    assert (observed.campaign, observed.deployment, observed.stable, observed.snapshot) == (None, None, None, None)
    assert (observed.embedding_runs, observed.runs) == ((), ())


def test_shapes_of_an_item_do_not_settle_an_answer_about_the_whole_image() -> None:
    box = Annotation(concept="van", box=PixelBox(x_max_px=2, y_max_px=2))
    task = Task(name="tasks/1")
    label = Annotation(concept="van", image_label=ImageLabel())
    assert not shows_answer(Item(), task, CLASSIFICATION)
    assert not shows_answer(Item(accepted=AcceptedAnnotations(annotations=[box])), task, CLASSIFICATION)
    assert shows_answer(Item(accepted=AcceptedAnnotations(annotations=[box], task="tasks/1")), task, CLASSIFICATION)
    assert shows_answer(Item(accepted=AcceptedAnnotations(annotations=[label, box])), task, CLASSIFICATION)
    assert shows_answer(Item(accepted=AcceptedAnnotations()), task, CLASSIFICATION)


def test_boxes_of_an_item_settle_an_answer_of_boxes() -> None:
    box = Annotation(concept="van", box=PixelBox(x_max_px=2, y_max_px=2))
    assert shows_answer(Item(accepted=AcceptedAnnotations(annotations=[box])), Task(name="tasks/1"), Detection())
    assert not shows_answer(Item(), Task(name="tasks/1"), Detection())


def control_task(number: int, *, predicted: str, accepted: datetime) -> Task:
    """Returns an accepted task of the control arm, whose answer is "van"."""
    task = Task(
        name=f"{NAMES.campaign}/tasks/c{number}",
        item=f"{DATASET}/items/train{number:04}",
        state=Task.ACCEPTED,
        control=True,
        model_version=version(1),
        pre_annotations=[a_label(predicted, 0.9)],
        accepted=[a_label("van")],
    )
    task.create_time.FromDatetime(NOW)
    task.update_time.FromDatetime(accepted)
    return task


def test_each_control_answer_is_listed_once() -> None:
    campaign, tasks = Campaign(name=NAMES.campaign), [control_task(1, predicted="van", accepted=NOW)]
    listed: list[str] = []

    def list_tasks(filter_text: str) -> list[Task]:
        since = datetime.fromisoformat(filter_text.rpartition('update_time >= "')[2].rstrip('"'))
        found = [task for task in tasks if task.update_time.ToDatetime(UTC) >= since]
        listed.extend(task.name for task in found)
        return found

    control = ControlAnswers()

    def right(minutes: float) -> list[bool]:
        now = NOW + timedelta(minutes=minutes)
        return [one.is_correct for one in control.since(NOW, campaign, CLASSIFICATION, now, list_tasks)]

    assert right(minutes=0) == [True]
    assert right(minutes=10) == [True]
    tasks.append(
        control_task(2, predicted="car", accepted=NOW + timedelta(minutes=9.5))
    )  # of a service whose clock is slow
    assert right(minutes=20) == [True, False]
    assert right(minutes=30) == [True, False]
    assert listed == [
        task.name for task in (tasks[0], tasks[0], tasks[1])
    ]  # the first within a minute of its acceptance


def test_control_answers_before_the_rounds_that_count_are_dropped() -> None:
    control, campaign = ControlAnswers(), Campaign(name=NAMES.campaign)
    task = control_task(1, predicted="van", accepted=NOW)
    later = NOW + timedelta(days=1)
    assert len(control.since(NOW, campaign, CLASSIFICATION, NOW, lambda _: [task])) == 1
    assert control.since(later, campaign, CLASSIFICATION, later, lambda _: []) == ()


def test_a_campaign_that_is_created_again_has_answers_of_its_own() -> None:
    control, campaign = ControlAnswers(), Campaign(name=NAMES.campaign)
    task = control_task(1, predicted="van", accepted=NOW)
    assert len(control.since(NOW, campaign, CLASSIFICATION, NOW, lambda _: [task])) == 1
    campaign.create_time.FromDatetime(NOW)
    assert control.since(NOW, campaign, CLASSIFICATION, NOW, lambda _: []) == ()
