"""A simulated platform in memory that implements the contracts of the other services, so that tests can run, and kill, hundreds of Loops.

It returns the first result for a repeated request_id, and rejects a repeat with another request, like the real services. `live` advances
the time: annotators answer, answers reach the dataset later, trainings run, versions load, items are scored.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from conductor_builders import DATASET, TAXONOMY, a_comparison, a_label, some_metrics
from simulated_services import CONCEPTS, SERVICERS, peers_of
from vesta_common.clock import ManualClock
from vesta_conductor.peers import Peers
from vesta_contracts.annotation.v1 import (
    Campaign,
    Task,
)
from vesta_contracts.common.v1 import Annotation, PixelBox, TaskType
from vesta_contracts.datasets.v1 import (
    Dataset,
    DatasetCounts,
    Snapshot,
)
from vesta_contracts.serving.v1 import Deployment
from vesta_contracts.training.v1 import (
    Estimate,
    Metrics,
    ModelVersion,
    TrainingRun,
)
from vesta_local.fakes import FirstResponses


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
        task_type: TaskType.ValueType = TaskType.TASK_TYPE_CLASSIFICATION,
    ) -> None:
        self.clock = clock
        self.task_type = task_type
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
        self.first = FirstResponses()
        self.measures_curves = True
        self.made: Counter[str] = Counter()
        self.on_their_way: list[Task] = []

    # What happens without requests.

    def live(self, seconds: float = 3) -> None:
        """Advances the time."""
        self.clock.advance(timedelta(seconds=seconds))
        self.deliver(self.on_their_way)
        self.on_their_way = []
        self.answer_tasks()
        if self.measures_curves:
            self._measure()
        self._train()
        self._load()
        self._score()

    def answer_tasks(self) -> None:
        for task in self.tasks.values():
            if task.state == Task.OPEN and self.chance.random() < 0.4:
                task.state = Task.ACCEPTED
                task.accepted.append(self.annotation(self.truth(task.item)))
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
        embeds = run.recipe.endswith("/embedding")
        task_type = TaskType.TASK_TYPE_EMBEDDING if embeds else self.task_type
        version = ModelVersion(name=run.model_version, task_type=task_type, training_run=run.name)
        if not embeds:
            run.metrics.CopyFrom(self._metrics(min(0.95, 0.6 + 0.03 * number)))
            version.metrics.CopyFrom(run.metrics)
            run.control_curve_pending = run.control_curve
            if run.champion:
                worse = self.chance.random() < self.worse_models
                run.comparison.CopyFrom(a_comparison(-0.05 if worse else 0.02))
                run.comparison.champion_metrics.CopyFrom(self._metrics(0.8))
                run.comparison.champion = run.champion
        self.versions[version.name] = version

    def _measure(self) -> None:
        for run in self.runs.values():
            if run.control_curve_pending:
                run.control_curve_pending = False
                run.random_labels.labels.CopyFrom(Estimate(value=200, low=100, high=400))

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

    def annotation(self, concept: str, score: float | None = None) -> Annotation:
        """Returns the annotation of an item with this concept: a box of one place, or a label."""
        if self.task_type != TaskType.TASK_TYPE_DETECTION:
            return a_label(concept, score)
        return Annotation(concept=concept, box=PixelBox(x_max_px=20, y_max_px=20), score=score)

    def _metrics(self, value: float) -> Metrics:
        """Returns metrics with this value of the primary metric."""
        metrics = some_metrics(value)
        if self.task_type == TaskType.TASK_TYPE_DETECTION:
            metrics.mean_average_precision_50.CopyFrom(metrics.accuracy)
            metrics.ClearField("accuracy")
        return metrics

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
            task_type=self.task_type,
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

    def servicers(self) -> list[Any]:
        return [kind(self) for kind in SERVICERS]

    def peers(
        self, before: Callable[[str], None] = lambda _: None, after: Callable[[str], None] = lambda _: None
    ) -> Peers:
        """In-process stubs; `before` and `after` are called around every call, and may raise."""
        return peers_of(self, before, after)
