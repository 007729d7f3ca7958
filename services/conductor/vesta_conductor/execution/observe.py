"""Observes the actual state of a Loop by reading its resources from the other services."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

from vesta_common.errors import NotFound
from vesta_contracts.annotation.v1 import GetCampaignRequest, ListTasksRequest, Task, TaskView
from vesta_contracts.datasets.v1 import (
    GetDatasetRequest,
    GetItemRequest,
    GetSnapshotRequest,
    GetTaxonomyRequest,
    Item,
    ItemView,
    ListItemsRequest,
)
from vesta_contracts.serving.v1 import Deployment, GetDeploymentRequest
from vesta_contracts.training.v1 import (
    GetModelVersionRequest,
    GetTrainingRunRequest,
    ListTrainingRunsRequest,
    ModelVersion,
    TrainingRun,
)

from vesta_conductor.execution.control_answers import CLOCK_SKEW_MAX, ControlAnswers
from vesta_conductor.peers import Peers
from vesta_conductor.reconciliation.names import LoopNames
from vesta_conductor.reconciliation.policy import Policy
from vesta_conductor.reconciliation.state import History, ObservedState
from vesta_conductor.reconciliation.training_stage import ATTEMPTS_MAX
from vesta_conductor.task_types import LoopTask, task_type_of

Q = TypeVar("Q")
R = TypeVar("R")

PAGE_SIZE = 1000
TASKS_MAX = 20_000  # per list of undecided or accepted tasks
ROUNDS_OF_CONTROL = 20  # earlier rounds whose control answers are read
RECENT = timedelta(days=1)
SETTLE = timedelta(seconds=60)  # how long the conductor waits for the dataset to contain an accepted answer
SETTLE_ANSWERS_MAX = 200  # the newest answers that are checked
EMBEDDING_RUNS_MAX = 20


def observe(
    peers: Peers, names: LoopNames, policy: Policy, history: History, control: ControlAnswers, now: datetime
) -> ObservedState:
    """Returns the current state of the resources of a Loop.

    Resources are read in the order in which labels pass through them. A task that is accepted meanwhile is therefore seen twice, as
    undecided and as accepted or as accepted and as labelled, but never not at all. The dataset is read last, after the items of recent
    answers, so that its counts contain every answer that was found to be settled.

    Raises:
        VestaError: a service returned an error.
    """
    snapshot = _find(peers.snapshots.GetSnapshot, GetSnapshotRequest(name=names.snapshot(history.current.number)))
    campaign = _find(peers.campaigns.GetCampaign, GetCampaignRequest(name=names.campaign))
    labelling = campaign is not None and snapshot is None
    undecided = _tasks(peers, names, "state = OPEN OR state = IN_REVIEW") if labelling else ()
    accepted = (
        _tasks(peers, names, f"state = ACCEPTED AND update_time >= {_recent_since(history, now)}") if labelling else ()
    )
    unsettled = _is_unsettled(peers, policy.dataset, _fresh(accepted, now), task_type_of(campaign))
    deployment = _find(peers.deployments.GetDeployment, GetDeploymentRequest(name=names.deployment))
    dataset = _find(peers.datasets.GetDataset, GetDatasetRequest(name=policy.dataset))
    observed = ObservedState(
        dataset=dataset,
        taxonomy=_find(peers.taxonomies.GetTaxonomy, GetTaxonomyRequest(name=dataset.taxonomy)) if dataset else None,
        campaign=campaign,
        undecided=undecided,
        accepted=accepted,
        unsettled=unsettled,
        deployment=deployment,
        stable=_stable(peers, deployment),
        embedding_runs=() if deployment else _embedding_runs(peers, names),
        snapshot=snapshot,
        runs=_round_runs(peers, names, history) if snapshot else (),
        measured_run=_measured_run(peers, history),
    )
    if campaign is None or not observed.champion:
        return observed
    answers = control.since(
        _start_of_round(history, ROUNDS_OF_CONTROL),
        campaign,
        task_type_of(campaign),
        now,
        lambda filter_text: _listed(peers, names, filter_text, TaskView.TASK_VIEW_FULL),
    )
    return replace(observed, control=answers)


def _find(call: Callable[[Q], R], request: Q) -> R | None:
    try:
        return call(request)
    except NotFound:
        return None


def _recent_since(history: History, now: datetime) -> str:
    """Returns the earliest update time of accepted tasks to list: the start of the previous round, or one day ago if that is later."""
    return _quoted(max(_start_of_round(history, 1), now - RECENT))


def _start_of_round(history: History, back: int) -> datetime:
    """Returns the start time of the round `back` rounds before the current one, or of the first round."""
    records = [*history.ended, history.current]
    return records[max(0, len(records) - 1 - back)].round.start_time.ToDatetime(UTC)


def _quoted(time: datetime) -> str:
    """Formats a time for a filter expression."""
    return f'"{time.isoformat()}"'


def _tasks(peers: Peers, names: LoopNames, filter_text: str) -> tuple[Task, ...]:
    """Returns tasks without their annotations."""
    return tuple(islice(_listed(peers, names, filter_text, TaskView.TASK_VIEW_BASIC), TASKS_MAX))


def _listed(peers: Peers, names: LoopNames, filter_text: str, view: TaskView.ValueType) -> Iterator[Task]:
    request = ListTasksRequest(parent=names.campaign, filter=filter_text, page_size=PAGE_SIZE, view=view)
    while True:
        page = peers.tasks.ListTasks(request)
        yield from page.tasks
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def _fresh(accepted: tuple[Task, ...], now: datetime) -> list[Task]:
    """Returns the accepted tasks whose answers may not have reached their items yet, newest first. Answers may arrive out of order."""
    newest = sorted(accepted, key=lambda task: task.update_time.ToNanoseconds(), reverse=True)[:SETTLE_ANSWERS_MAX]
    return [task for task in newest if now - task.update_time.ToDatetime(now.tzinfo) < SETTLE]


def _is_unsettled(peers: Peers, dataset: str, fresh: list[Task], task_type: LoopTask) -> bool:
    """Whether the dataset does not contain one of these answers yet. Ignores deleted items."""
    if not fresh:
        return False
    since = fresh[-1].update_time.ToDatetime(UTC) - CLOCK_SKEW_MAX
    request = ListItemsRequest(
        parent=dataset,
        filter=f"labelled AND update_time >= {_quoted(since)}",
        page_size=PAGE_SIZE,
        view=ItemView.ITEM_VIEW_NAME,
    )
    page = _find(peers.items.ListItems, request)
    settled = {item.name for item in page.items} if page else set()
    remaining = (
        (task, _find(peers.items.GetItem, GetItemRequest(name=task.item))) for task in fresh if task.item not in settled
    )
    return any(item is not None and not shows_answer(item, task, task_type) for task, item in remaining)


def shows_answer(item: Item, task: Task, task_type: LoopTask) -> bool:
    """Whether an item contains the task's answer or later accepted annotations. What does not label the item is not such an answer."""
    return item.HasField("accepted") and (
        item.accepted.task == task.name or task_type.is_labelled(item.accepted.annotations)
    )


def _stable(peers: Peers, deployment: Deployment | None) -> ModelVersion | None:
    if deployment is None or not deployment.stable_version:
        return None
    return _find(peers.models.GetModelVersion, GetModelVersionRequest(name=deployment.stable_version))


def _embedding_runs(peers: Peers, names: LoopNames) -> tuple[TrainingRun, ...]:
    """Returns the newest attempts, from one page: missing attempts cost no call each."""
    request = ListTrainingRunsRequest(
        parent=names.project, filter=f'model = "{names.embedding_model}"', page_size=EMBEDDING_RUNS_MAX
    )
    runs = {run.name: run for run in peers.runs.ListTrainingRuns(request).training_runs}
    return _attempts(runs.get, names.embedding_run, EMBEDDING_RUNS_MAX)


def _round_runs(peers: Peers, names: LoopNames, history: History) -> tuple[TrainingRun, ...]:
    return _attempts(
        lambda name: _find(peers.runs.GetTrainingRun, GetTrainingRunRequest(name=name)),
        lambda attempt: names.run(history.current.number, attempt),
        ATTEMPTS_MAX,
    )


def _measured_run(peers: Peers, history: History) -> TrainingRun | None:
    saving = history.label_saving
    if saving is None or not saving.pending:
        return None
    return _find(peers.runs.GetTrainingRun, GetTrainingRunRequest(name=saving.training_run))


def _attempts(
    find: Callable[[str], TrainingRun | None], name_of: Callable[[int], str], attempts_max: int
) -> tuple[TrainingRun, ...]:
    """Returns the existing attempts in order. An attempt is created only after the previous one has failed; that one may be deleted."""
    runs: list[TrainingRun] = []
    for attempt in range(1, attempts_max + 1):
        run = find(name_of(attempt))
        if run is None:
            continue
        runs.append(run)
        if run.state not in (TrainingRun.FAILED, TrainingRun.CANCELLED):
            break
    return tuple(runs)
