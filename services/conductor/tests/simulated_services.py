"""The gRPC services of the simulated platform, one class each."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from conductor_builders import DATASET, NAMES, TAXONOMY
from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_common.messages import copy_of, without
from vesta_common.resources.etags import check_etag, etag_of, with_etag
from vesta_common.resources.masks import apply_update
from vesta_common.resources.methods import existing, missing, revise, taken
from vesta_common.resources.pages import SIZE_DEFAULT
from vesta_conductor.peers import Peers
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksResponse,
    Campaign,
    CampaignServiceServicer,
    ListTasksResponse,
    Task,
    TaskServiceServicer,
    TaskView,
)
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.datasets.v1 import (
    Concept,
    Dataset,
    DatasetServiceServicer,
    Item,
    ItemServiceServicer,
    ListItemsResponse,
    SelectedItem,
    SelectItemsResponse,
    Snapshot,
    SnapshotServiceServicer,
    Split,
    SplitStatistics,
    Taxonomy,
    TaxonomyServiceServicer,
)
from vesta_contracts.serving.v1 import Deployment, DeploymentServiceServicer
from vesta_contracts.training.v1 import (
    ListTrainingRunsResponse,
    ModelServiceServicer,
    ModelVersion,
    Recipe,
    RecipeServiceServicer,
    TrainingRun,
    TrainingRunServiceServicer,
)

if TYPE_CHECKING:
    from conductor_simulation import SimulatedPlatform

CONCEPTS = ("car", "van")
_CAMPAIGN_MUTABLE = ("display_name", "instructions", "concepts", "review_share", "lease_duration", "state")
_DEPLOYMENT_MUTABLE = ("display_name", "model_version", "uncertainty", "datasets")


class _Direct:
    """Calls a servicer like a stub, with copies of the messages, so that later changes have no effect."""

    def __init__(self, servicer: Any, before: Callable[[str], None], after: Callable[[str], None]) -> None:
        self._servicer, self._before, self._after = servicer, before, after

    def __getattr__(self, method: str) -> Callable[[Any], Any]:
        def call(request: Any) -> Any:
            self._before(method)
            answer = getattr(self._servicer, method)(request, None)
            copy = type(answer)()
            copy.CopyFrom(answer)
            self._after(method)
            return copy

        return call


def _get(things: dict[str, Any], name: str) -> Any:
    return existing(things.get(name), name)


def _check_dataset(name: str) -> None:
    if name != DATASET:
        raise missing(name)


def _tasks_of(platform: "SimulatedPlatform", campaign: str) -> Iterable[Task]:
    return (task for task in platform.tasks.values() if task.name.startswith(f"{campaign}/"))


def _check_free(things: dict[str, Any], name: str) -> None:
    if name in things:
        raise taken(name)


def _etag_part(deployment: Deployment) -> Deployment:
    """Returns the part of a deployment that its etag covers."""
    return without(deployment, "update_time", "scoring")


def _with_etag(deployment: Deployment) -> Deployment:
    return copy_of(deployment, etag=etag_of(_etag_part(deployment)))


_TASK_TYPES = {
    "classification": TaskType.TASK_TYPE_CLASSIFICATION,
    "multilabel": TaskType.TASK_TYPE_MULTI_LABEL,
    "detection": TaskType.TASK_TYPE_DETECTION,
    "embedding": TaskType.TASK_TYPE_UNSPECIFIED,
}


def _recipe(name: str) -> Recipe:
    recipe_id = name.rpartition("/")[2]
    if recipe_id not in _TASK_TYPES:
        raise missing(name)
    return Recipe(name=name, task_type=_TASK_TYPES[recipe_id])


def _page(things: list[Any], request: Any) -> tuple[list[Any], str]:
    """Returns a page of all resources, and the token of the next page: its place."""
    begin = int(request.page_token or 0)
    end = begin + (request.page_size or SIZE_DEFAULT)
    return things[begin:end], str(end) if end < len(things) else ""


class _Servicer:
    def __init__(self, platform: "SimulatedPlatform") -> None:
        self.platform = platform


class _Datasets(_Servicer, DatasetServiceServicer):
    def GetDataset(self, request: Any, context: Any) -> Dataset:
        return _get({DATASET: self.platform.dataset()}, request.name)


class _Taxonomies(_Servicer, TaxonomyServiceServicer):
    def GetTaxonomy(self, request: Any, context: Any) -> Taxonomy:
        return _get({TAXONOMY: Taxonomy(name=TAXONOMY, concepts=[Concept(id=name) for name in CONCEPTS])}, request.name)


class _Items(_Servicer, ItemServiceServicer):
    def GetItem(self, request: Any, context: Any) -> Item:
        label = _get(self.platform.items, request.name)
        item = Item(name=request.name, split=Split.SPLIT_TEST if "/items/test" in request.name else Split.SPLIT_TRAIN)
        if label:
            item.accepted.annotations.append(self.platform.annotation(label))
        return item

    def ListItems(self, request: Any, context: Any) -> ListItemsResponse:
        _check_dataset(request.parent)
        if request.filter == "split = TEST AND NOT labelled":
            names = self._unlabelled("test")
        else:
            since = re.fullmatch(r'labelled AND update_time >= "([^"]+)"', request.filter)
            assert since, request.filter
            begin = datetime.fromisoformat(since[1])
            times = self.platform.label_times
            names = [name for name in self.platform.items if name in times and times[name] >= begin]
        page, token = _page(names, request)
        return ListItemsResponse(items=[Item(name=name) for name in page], next_page_token=token)

    def SelectItems(self, request: Any, context: Any) -> SelectItemsResponse:
        _check_dataset(request.parent)
        excluded = set(request.excluded)
        if request.split == Split.SPLIT_TEST:
            free = [name for name in self._unlabelled("test") if name not in excluded]
            drawn = [SelectedItem(item=item, reason="drawn by the simulation") for item in free[: request.count]]
            return SelectItemsResponse(items=drawn, pool_count=len(free))
        free = [name for name in self._unlabelled("train") if name not in excluded]
        by = self.platform.scored_by if self.platform.scored_by.startswith(NAMES.model + "/") else ""
        return SelectItemsResponse(
            items=[
                SelectedItem(
                    item=item,
                    control=place % 5 == 0,
                    reason="the simulation chose it",
                    pre_annotations=[self.platform.annotation(CONCEPTS[0], 0.6)] if by else [],
                    model_version=by,
                )
                for place, item in enumerate(free[: request.count])
            ]
        )

    def _unlabelled(self, split: str) -> list[str]:
        return [name for name, label in self.platform.items.items() if f"/items/{split}" in name and not label]


class _Snapshots(_Servicer, SnapshotServiceServicer):
    def GetSnapshot(self, request: Any, context: Any) -> Snapshot:
        return _get(self.platform.snapshots, request.name)

    def CreateSnapshot(self, request: Any, context: Any) -> Snapshot:
        return self.platform.first.once(request, lambda: self._create(request))

    def _create(self, request: Any) -> Snapshot:
        name = f"{request.parent}/snapshots/{request.snapshot_id}"
        assert name not in self.platform.snapshots, f"{name} is made a second time"
        self.platform.made[name] += 1
        concepts = Counter(label for item, label in self.platform.items.items() if label and "/items/train" in item)
        snapshot = Snapshot(name=name)
        snapshot.statistics.splits.append(
            SplitStatistics(split="TRAIN", labelled_count=concepts.total(), concept_counts=concepts)
        )
        snapshot.statistics.control_count = len(self.platform.control)
        snapshot.create_time.FromDatetime(self.platform.clock.now())
        self.platform.snapshots[name] = snapshot
        return snapshot


class _Campaigns(_Servicer, CampaignServiceServicer):
    def GetCampaign(self, request: Any, context: Any) -> Campaign:
        campaign = copy_of(_get(self.platform.campaigns, request.name))
        states = Counter(task.state for task in _tasks_of(self.platform, campaign.name))
        campaign.counts.open_count = states[Task.OPEN]
        campaign.counts.accepted_count = states[Task.ACCEPTED]
        return campaign

    def CreateCampaign(self, request: Any, context: Any) -> Campaign:
        return self.platform.first.once(request, lambda: self._create(request))

    def UpdateCampaign(self, request: Any, context: Any) -> Campaign:
        current = _get(self.platform.campaigns, request.campaign.name)
        campaign = with_etag(revise(current, request.campaign, request.update_mask, _CAMPAIGN_MUTABLE))
        self.platform.campaigns[campaign.name] = campaign
        for task in _tasks_of(self.platform, campaign.name) if campaign.state == Campaign.CLOSED else ():
            if task.state == Task.OPEN:
                task.state = Task.CANCELLED
        return campaign

    def _create(self, request: Any) -> Campaign:
        name = f"{request.parent}/campaigns/{request.campaign_id}"
        _check_free(self.platform.campaigns, name)
        _check_dataset(request.campaign.dataset)
        self.platform.made[name] += 1
        campaign = copy_of(request.campaign, name=name, state=request.campaign.state or Campaign.ACTIVE)
        campaign.create_time.FromDatetime(self.platform.clock.now())
        self.platform.campaigns[name] = with_etag(campaign)
        return campaign


class _Tasks(_Servicer, TaskServiceServicer):
    def BatchCreateTasks(self, request: Any, context: Any) -> BatchCreateTasksResponse:
        return self.platform.first.once(request, lambda: self._create(request))

    def ListTasks(self, request: Any, context: Any) -> ListTasksResponse:
        _get(self.platform.campaigns, request.parent)
        wanted = {
            state for state in (Task.OPEN, Task.ACCEPTED) if f"state = {Task.State.Name(state)}" in request.filter
        }
        times = re.findall(r'(create_time|update_time) >= "([^"]+)"', request.filter)
        begins = [(field, datetime.fromisoformat(begin)) for field, begin in times]
        found = [
            task
            for task in _tasks_of(self.platform, request.parent)
            if task.state in wanted
            and (task.control or "control = true" not in request.filter)
            and all(getattr(task, field).ToDatetime(begin.tzinfo) >= begin for field, begin in begins)
        ]
        if request.view == TaskView.TASK_VIEW_BASIC:
            found = [without(task, "pre_annotations", "accepted") for task in found]
        page, token = _page(found, request)
        return ListTasksResponse(tasks=page, next_page_token=token)

    def _create(self, request: Any) -> BatchCreateTasksResponse:
        if _get(self.platform.campaigns, request.parent).state == Campaign.CLOSED:
            raise FailedPrecondition(f"{request.parent} is closed", reason="CAMPAIGN_CLOSED")
        for wanted in request.tasks:
            _get(self.platform.items, wanted.item)
        made = []
        for wanted in request.tasks:
            assert not self.platform.items[wanted.item], f"{wanted.item} is labelled already"
            assert all(task.item != wanted.item for task in self.platform.tasks.values()), (
                f"{wanted.item} is asked twice"
            )
            self.platform.made[f"{wanted.item}/task"] += 1
            task = Task()
            task.CopyFrom(wanted)
            task.name = f"{request.parent}/tasks/t{len(self.platform.tasks)}"
            task.state = Task.OPEN
            task.blind = task.control or "/items/test" in task.item
            task.create_time.FromDatetime(self.platform.clock.now())
            task.update_time.FromDatetime(self.platform.clock.now())
            self.platform.tasks[task.name] = task
            made.append(task)
        return BatchCreateTasksResponse(tasks=made)


class _Runs(_Servicer, TrainingRunServiceServicer):
    def GetTrainingRun(self, request: Any, context: Any) -> TrainingRun:
        return _get(self.platform.runs, request.name)

    def ListTrainingRuns(self, request: Any, context: Any) -> ListTrainingRunsResponse:
        model = re.fullmatch(r'model = "([^"]+)"', request.filter)
        assert model, request.filter
        runs = [run for run in self.platform.runs.values() if run.model == model[1]]
        page, token = _page(runs[::-1], request)
        return ListTrainingRunsResponse(training_runs=page, next_page_token=token)

    def CreateTrainingRun(self, request: Any, context: Any) -> TrainingRun:
        return self.platform.first.once(request, lambda: self._create(request))

    def _create(self, request: Any) -> TrainingRun:
        name = f"{request.parent}/trainingRuns/{request.training_run_id}"
        asked = request.training_run
        _recipe(asked.recipe)
        if asked.snapshot:
            _get(self.platform.snapshots, asked.snapshot)
        elif not asked.recipe.endswith("/embedding"):
            raise InvalidArgument(f"{asked.recipe} needs a snapshot", reason="SNAPSHOT_MISSING")
        if asked.champion:
            _get(self.platform.versions, asked.champion)
        assert name not in self.platform.runs, f"{name} is made a second time"
        assert not any(run.state in (TrainingRun.QUEUED, TrainingRun.RUNNING) for run in self.platform.runs.values()), (
            "two trainings at once"
        )
        self.platform.made[name] += 1
        run = TrainingRun()
        run.CopyFrom(request.training_run)
        run.name, run.state = name, TrainingRun.QUEUED
        self.platform.runs[name] = run
        return run


class _Models(_Servicer, ModelServiceServicer):
    def GetModelVersion(self, request: Any, context: Any) -> ModelVersion:
        return _get(self.platform.versions, request.name)


class _Recipes(_Servicer, RecipeServiceServicer):
    def GetRecipe(self, request: Any, context: Any) -> Recipe:
        return _recipe(request.name)


class _Deployments(_Servicer, DeploymentServiceServicer):
    def GetDeployment(self, request: Any, context: Any) -> Deployment:
        return _with_etag(_get(self.platform.deployments, request.name))

    def CreateDeployment(self, request: Any, context: Any) -> Deployment:
        return self.platform.first.once(request, lambda: self._create(request))

    def UpdateDeployment(self, request: Any, context: Any) -> Deployment:
        current = _with_etag(_get(self.platform.deployments, request.deployment.name))
        check_etag(request.deployment.etag, _etag_part(current))
        deployment = apply_update(current, request.deployment, request.update_mask, _DEPLOYMENT_MUTABLE)
        self._check_version(deployment)
        if deployment.model_version != deployment.stable_version:
            deployment.state = Deployment.LOADING
        self.platform.deployments[deployment.name] = deployment
        return _with_etag(deployment)

    def _check_version(self, deployment: Deployment) -> None:
        if deployment.model_version not in self.platform.versions:
            raise InvalidArgument(f"there is no {deployment.model_version}", reason="MODEL_VERSION_NOT_FOUND")

    def _create(self, request: Any) -> Deployment:
        name = f"{request.parent}/deployments/{request.deployment_id}"
        _check_free(self.platform.deployments, name)
        self._check_version(request.deployment)
        self.platform.made[name] += 1
        self.platform.deployments[name] = copy_of(request.deployment, name=name, state=Deployment.LOADING)
        return _with_etag(self.platform.deployments[name])


SERVICERS = (
    _Datasets,
    _Taxonomies,
    _Items,
    _Snapshots,
    _Campaigns,
    _Tasks,
    _Runs,
    _Models,
    _Recipes,
    _Deployments,
)


def peers_of(platform: "SimulatedPlatform", before: Callable[[str], None], after: Callable[[str], None]) -> Peers:
    """Returns in-process stubs; `before` and `after` are called around every call, and may raise."""
    found = {kind: _Direct(kind(platform), before, after) for kind in SERVICERS}
    return Peers(
        datasets=found[_Datasets],  # type: ignore[arg-type]
        items=found[_Items],  # type: ignore[arg-type]
        snapshots=found[_Snapshots],  # type: ignore[arg-type]
        taxonomies=found[_Taxonomies],  # type: ignore[arg-type]
        campaigns=found[_Campaigns],  # type: ignore[arg-type]
        tasks=found[_Tasks],  # type: ignore[arg-type]
        runs=found[_Runs],  # type: ignore[arg-type]
        models=found[_Models],  # type: ignore[arg-type]
        recipes=found[_Recipes],  # type: ignore[arg-type]
        deployments=found[_Deployments],  # type: ignore[arg-type]
    )
