"""A simulated platform in memory that implements the contracts of the other services, so that tests can run, and kill, hundreds of Loops.

It returns the first result for a repeated request_id, and rejects a repeat with another request, like the real services. `live` advances
the time: annotators answer, answers reach the dataset later, trainings run, versions load, items are scored.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from conductor_builders import DATASET, NAMES, TAXONOMY, a_comparison, a_label, some_metrics
from google.protobuf.message import Message
from vesta_common.clock import ManualClock
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
)
from vesta_contracts.datasets.v1 import (
    Concept,
    Dataset,
    DatasetCounts,
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
    Estimate,
    ModelServiceServicer,
    ModelVersion,
    Recipe,
    RecipeServiceServicer,
    TrainingRun,
    TrainingRunServiceServicer,
)

CONCEPTS = ("car", "van")
_CAMPAIGN_MUTABLE = ("display_name", "instructions", "concepts", "review_share", "lease_duration", "state")
_DEPLOYMENT_MUTABLE = ("display_name", "model_version", "uncertainty", "datasets")


class SimulatedPlatform:
    """The state of the other services.

    Args:
        train, test: items in each split.
        chance: the random numbers of `live`.
        failing_runs: share of trainings that fail.
        worse_models: share of challengers that are worse than their champion.
        settle: whether answers reach the dataset later than their task is accepted.
    """

    def __init__(
        self,
        clock: ManualClock,
        chance: random.Random,
        *,
        train: int = 120,
        test: int = 20,
        failing_runs: float = 0.0,
        worse_models: float = 0.0,
        settle: bool = True,
    ) -> None:
        self.clock = clock
        self.chance = chance
        self.items = {f"{DATASET}/items/train{n:04}": "" for n in range(train)}
        self.items |= {f"{DATASET}/items/test{n:04}": "" for n in range(test)}
        self.label_times: dict[str, datetime] = {}
        self.control: set[str] = set()
        self.embedded = 0
        self.scored: Counter[str] = Counter()
        self.scored_by = ""
        self.snapshots: dict[str, Snapshot] = {}
        self.campaigns: dict[str, Campaign] = {}
        self.tasks: dict[str, Task] = {}
        self.runs: dict[str, TrainingRun] = {}
        self.versions: dict[str, ModelVersion] = {}
        self.deployments: dict[str, Deployment] = {}
        self.failing_runs = failing_runs
        self.worse_models = worse_models
        self.settle = settle
        self.answers: dict[tuple[str, str], tuple[bytes, Message]] = {}
        self.made: Counter[str] = Counter()
        self.on_their_way: list[Task] = []

    # What happens without requests.

    def live(self, seconds: float = 3) -> None:
        """Advances the time."""
        self.clock.advance(timedelta(seconds=seconds))
        self.deliver(self.on_their_way)
        self.on_their_way = []
        self.answer_tasks()
        self._train()
        self._load()
        self._score()

    def answer_tasks(self) -> None:
        for task in self.tasks.values():
            if task.state == Task.OPEN and self.chance.random() < 0.4:
                task.state = Task.ACCEPTED
                task.accepted.append(a_label(self.truth(task.item)))
                task.update_time.FromDatetime(self.clock.now())
                self.on_their_way.append(task)
        if not self.settle:
            self.deliver(self.on_their_way)
            self.on_their_way = []

    def deliver(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self.label(task.item, task.accepted[0].concept)
            if task.control:
                self.control.add(task.item)

    def label(self, item: str, concept: str) -> None:
        self.items[item] = concept
        self.label_times[item] = self.clock.now()

    def _train(self) -> None:
        for run in self.runs.values():
            if run.state == TrainingRun.QUEUED:
                run.state = TrainingRun.RUNNING
            elif run.state == TrainingRun.RUNNING:
                if self.chance.random() < self.failing_runs:
                    run.state, run.error = TrainingRun.FAILED, "the simulation wanted it so."
                else:
                    self._succeed(run)

    def _succeed(self, run: TrainingRun) -> None:
        number = sum(version.startswith(run.model + "/") for version in self.versions) + 1
        run.state, run.model_version = TrainingRun.SUCCEEDED, f"{run.model}/versions/{number}"
        task = "embedding" if run.recipe.endswith("/embedding") else "classification"
        version = ModelVersion(name=run.model_version, task=task, training_run=run.name)
        if task == "classification":
            run.metrics.CopyFrom(some_metrics(min(0.95, 0.6 + 0.03 * number)))
            version.metrics.CopyFrom(run.metrics)
            run.random_labels.labels.CopyFrom(Estimate(value=200, low=100, high=400))
            if run.champion:
                worse = self.chance.random() < self.worse_models
                run.comparison.CopyFrom(a_comparison(-0.05 if worse else 0.02))
                run.comparison.champion = run.champion
        self.versions[version.name] = version

    def _load(self) -> None:
        for deployment in self.deployments.values():
            if deployment.stable_version != deployment.model_version:
                deployment.state = Deployment.READY
                deployment.previous_version = deployment.stable_version
                deployment.stable_version = deployment.model_version
                deployment.scoring.model_version = deployment.stable_version
                deployment.scoring.scored_count = 0
                deployment.scoring.item_count = len(self.items)

    def _score(self) -> None:
        for deployment in self.deployments.values():
            if deployment.stable_version:
                self.embedded = min(len(self.items), self.embedded + 70)
                self.scored_by = deployment.stable_version
                self.scored[self.scored_by] = min(len(self.items), self.scored[self.scored_by] + 70)
                deployment.scoring.scored_count = self.scored[self.scored_by]

    # State.

    def truth(self, item: str) -> str:
        return CONCEPTS[hashlib.sha256(item.encode()).digest()[0] % len(CONCEPTS)]

    def labelled(self, side: str) -> int:
        return sum(bool(label) and f"/items/{side}" in item for item, label in self.items.items())

    def dataset(self) -> Dataset:
        train = sum("/items/train" in item for item in self.items)
        pool = train - self.labelled("train")
        return Dataset(
            name=DATASET,
            taxonomy=TAXONOMY,
            counts=DatasetCounts(
                item_count=len(self.items),
                labelled_count=self.labelled("train") + self.labelled("test"),
                train_labelled_count=self.labelled("train"),
                test_labelled_count=self.labelled("test"),
                test_item_count=len(self.items) - train,
                pool_count=pool,
                embedded_count=self.embedded,
                scored_count=self.scored[self.scored_by],
                scored_model_version=self.scored_by,
                pool_scored_count=pool,
                pool_certain_count=pool // 2,
            ),
        )

    def once(self, request: Any, work: Callable[[], Message]) -> Any:
        """Returns the first result for a request_id; rejects a repeat with another request."""
        if not request.request_id:
            return work()
        key = (request.DESCRIPTOR.full_name, request.request_id)
        body = request.SerializeToString(deterministic=True)
        if key in self.answers:
            first, answer = self.answers[key]
            if first != body:
                raise InvalidArgument(
                    f"request_id {request.request_id!r} was used for another request",
                    reason="REQUEST_ID_REUSED",
                    metadata={"request_id": request.request_id},
                )
            return answer
        self.answers[key] = (body, copy_of(work()))
        return self.answers[key][1]

    def servicers(self) -> list[Any]:
        return [kind(self) for kind in SERVICERS]

    def peers(
        self, before: Callable[[str], None] = lambda _: None, after: Callable[[str], None] = lambda _: None
    ) -> Peers:
        """In-process stubs; `before` and `after` are called around every call, and may raise."""
        found = {type(servicer): _Direct(servicer, before, after) for servicer in self.servicers()}
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


def _tasks_of(platform: SimulatedPlatform, campaign: str) -> Iterable[Task]:
    return (task for task in platform.tasks.values() if task.name.startswith(f"{campaign}/"))


def _check_free(things: dict[str, Any], name: str) -> None:
    if name in things:
        raise taken(name)


def _etag_part(deployment: Deployment) -> Deployment:
    """Returns the part of a deployment that its etag covers."""
    return without(deployment, "update_time", "scoring")


def _with_etag(deployment: Deployment) -> Deployment:
    return copy_of(deployment, etag=etag_of(_etag_part(deployment)))


def _check_recipe(name: str) -> None:
    if not name.endswith(("/classification", "/embedding")):
        raise missing(name)


def _page(things: list[Any], request: Any) -> tuple[list[Any], str]:
    """Returns a page of all resources, and the token of the next page: its place."""
    begin = int(request.page_token or 0)
    end = begin + (request.page_size or SIZE_DEFAULT)
    return things[begin:end], str(end) if end < len(things) else ""


class _Servicer:
    def __init__(self, platform: SimulatedPlatform) -> None:
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
            item.accepted.annotations.append(a_label(label))
        return item

    def ListItems(self, request: Any, context: Any) -> ListItemsResponse:
        _check_dataset(request.parent)
        if request.filter == "split = TEST AND NOT labelled":
            names = [name for name, label in self.platform.items.items() if "/items/test" in name and not label]
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
        free = [
            name
            for name, label in self.platform.items.items()
            if "/items/train" in name and not label and name not in excluded
        ]
        by = self.platform.scored_by if self.platform.scored_by.startswith(NAMES.model + "/") else ""
        return SelectItemsResponse(
            items=[
                SelectedItem(
                    item=item,
                    control=place % 5 == 0,
                    reason="the simulation chose it",
                    pre_annotations=[a_label(CONCEPTS[0], 0.6)] if by else [],
                    model_version=by,
                )
                for place, item in enumerate(free[: request.count])
            ]
        )


class _Snapshots(_Servicer, SnapshotServiceServicer):
    def GetSnapshot(self, request: Any, context: Any) -> Snapshot:
        return _get(self.platform.snapshots, request.name)

    def CreateSnapshot(self, request: Any, context: Any) -> Snapshot:
        return self.platform.once(request, lambda: self._create(request))

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
        return self.platform.once(request, lambda: self._create(request))

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
        return self.platform.once(request, lambda: self._create(request))

    def ListTasks(self, request: Any, context: Any) -> ListTasksResponse:
        _get(self.platform.campaigns, request.parent)
        wanted = {
            state for state in (Task.OPEN, Task.ACCEPTED) if f"state = {Task.State.Name(state)}" in request.filter
        }
        since = re.search(r'(create_time|update_time) >= "([^"]+)"', request.filter)
        field, begin = (since[1], datetime.fromisoformat(since[2])) if since else ("", None)
        found = [
            task
            for task in _tasks_of(self.platform, request.parent)
            if task.state in wanted
            and (task.control or "control = true" not in request.filter)
            and (begin is None or getattr(task, field).ToDatetime(begin.tzinfo) >= begin)
        ]
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
            task.create_time.FromDatetime(self.platform.clock.now())
            task.update_time.FromDatetime(self.platform.clock.now())
            self.platform.tasks[task.name] = task
            made.append(task)
        return BatchCreateTasksResponse(tasks=made)


class _Runs(_Servicer, TrainingRunServiceServicer):
    def GetTrainingRun(self, request: Any, context: Any) -> TrainingRun:
        return _get(self.platform.runs, request.name)

    def CreateTrainingRun(self, request: Any, context: Any) -> TrainingRun:
        return self.platform.once(request, lambda: self._create(request))

    def _create(self, request: Any) -> TrainingRun:
        name = f"{request.parent}/trainingRuns/{request.training_run_id}"
        asked = request.training_run
        _check_recipe(asked.recipe)
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
        _check_recipe(request.name)
        return Recipe(name=request.name)


class _Deployments(_Servicer, DeploymentServiceServicer):
    def GetDeployment(self, request: Any, context: Any) -> Deployment:
        return _with_etag(_get(self.platform.deployments, request.name))

    def CreateDeployment(self, request: Any, context: Any) -> Deployment:
        return self.platform.once(request, lambda: self._create(request))

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
