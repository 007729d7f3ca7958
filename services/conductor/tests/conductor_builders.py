"""Builders for the tests: situations with defaults, and the steps that reconciliation returns."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from vesta_conductor.reconciliation.names import LoopNames
from vesta_conductor.reconciliation.policy import Policy
from vesta_conductor.reconciliation.reconcile import reconcile
from vesta_conductor.reconciliation.round_updates import with_updates
from vesta_conductor.reconciliation.state import (
    Command,
    History,
    ObservedState,
    RoundOutcome,
    RoundRecord,
    Situation,
    Step,
)
from vesta_contracts.annotation.v1 import Campaign, CampaignCounts, Task
from vesta_contracts.common.v1 import Annotation, ImageLabel, TaskType
from vesta_contracts.conductor.v1 import LoopPolicy, Round
from vesta_contracts.datasets.v1 import (
    Concept,
    Dataset,
    DatasetCounts,
    SelectedItem,
    SelectItemsRequest,
    SelectItemsResponse,
    Snapshot,
    SnapshotStatistics,
    Split,
    SplitStatistics,
    Taxonomy,
)
from vesta_contracts.serving.v1 import Deployment, ScoringProgress
from vesta_contracts.training.v1 import Comparison, ConceptComparison, Estimate, Metrics, ModelVersion, TrainingRun

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROJECT = "projects/acme"
DATASET = f"{PROJECT}/datasets/vans"
TAXONOMY = f"{PROJECT}/taxonomies/vans"
LOOP = f"{PROJECT}/loops/vans"
NAMES = LoopNames(LOOP, DATASET)
EMBEDDING = f"{NAMES.embedding_model}/versions/1"
ITEMS = 1000


def version(number: int) -> str:
    return f"{NAMES.model}/versions/{number}"


def a_policy(**fields: Any) -> Policy:
    return Policy.of(
        LoopPolicy(**{"dataset": DATASET, "label_budget": 1000, "batch_size": 50, "test_labels": 20, **fields})
    )


def a_dataset(*, task_type: TaskType.ValueType = TaskType.TASK_TYPE_CLASSIFICATION, **counts: Any) -> Dataset:
    defaults = {
        "item_count": ITEMS,
        "embedded_count": ITEMS,
        "pool_count": 800,
        "test_item_count": 100,
        "test_labelled_count": 20,
    }
    return Dataset(name=DATASET, taxonomy=TAXONOMY, task_type=task_type, counts=DatasetCounts(**{**defaults, **counts}))


def a_campaign(**fields: Any) -> Campaign:
    counts = {key: fields.pop(key) for key in list(fields) if key.endswith("_count")}
    defaults = {
        "name": NAMES.campaign,
        "dataset": DATASET,
        "concepts": ["car", "van"],
        "annotators_per_task": 1,
        "state": Campaign.ACTIVE,
    }
    return Campaign(**{**defaults, **fields}, counts=CampaignCounts(**counts))


def a_deployment(wanted: str = EMBEDDING, stable: str | None = None, **fields: Any) -> Deployment:
    answers = wanted if stable is None else stable
    defaults = {"name": NAMES.deployment, "datasets": [DATASET], "state": Deployment.READY}
    deployment = Deployment(model_version=wanted, stable_version=answers, **{**defaults, **fields})
    deployment.update_time.FromDatetime(NOW)
    return deployment


def scored(by: str, count: int = ITEMS) -> ScoringProgress:
    return ScoringProgress(model_version=by, scored_count=count, item_count=ITEMS)


def a_model(name: str = EMBEDDING) -> ModelVersion:
    return ModelVersion(
        name=name, task="embedding" if name == EMBEDDING else "classification", metrics=some_metrics(0.8)
    )


def some_metrics(accuracy: float, items: int = 100) -> Metrics:
    return Metrics(item_count=items, accuracy=Estimate(value=accuracy, low=accuracy - 0.08, high=accuracy + 0.08))


def a_comparison(
    difference: float = 0.02,
    recalls: dict[str, tuple[float, float]] | None = None,
    champion: float = 0.8,
    items: int = 100,
) -> Comparison:
    """Builds a comparison; `recalls`: (value, high) of the difference by concept."""
    return Comparison(
        champion=version(1),
        champion_metrics=some_metrics(champion, items),
        difference=Estimate(value=difference, low=difference - 0.05, high=difference + 0.05),
        concepts=[
            ConceptComparison(
                concept=concept,
                item_count=50,
                difference=Estimate(value=value, low=value - (high - value), high=high),
            )
            for concept, (value, high) in (recalls or {}).items()
        ],
    )


def a_run(
    number: int = 1, attempt: int = 1, state: TrainingRun.State.ValueType = TrainingRun.SUCCEEDED, **fields: Any
) -> TrainingRun:
    done = {"model_version": version(number), "metrics": some_metrics(0.8)} if state == TrainingRun.SUCCEEDED else {}
    return TrainingRun(name=NAMES.run(number, attempt), state=state, **{**done, **fields})


def a_snapshot(number: int = 1, *, concepts: dict[str, int] | None = None) -> Snapshot:
    counts = {"car": 25, "van": 25} if concepts is None else concepts
    snapshot = Snapshot(
        name=NAMES.snapshot(number),
        statistics=SnapshotStatistics(
            splits=[
                SplitStatistics(
                    split="TRAIN",
                    item_count=sum(counts.values()),
                    labelled_count=sum(counts.values()),
                    concept_counts=counts,
                )
            ],
            control_count=7,
        ),
    )
    snapshot.create_time.FromDatetime(NOW - timedelta(seconds=20))
    return snapshot


def a_task(item: int | str = 1, *, answer: str = "", ago: float = 120, **fields: Any) -> Task:
    name = item if isinstance(item, str) else f"{DATASET}/items/i{item}"
    state = Task.ACCEPTED if answer else Task.OPEN
    task = Task(
        name=f"{NAMES.campaign}/tasks/t{item}", item=name, state=state, **{"blind": "/items/test" in name, **fields}
    )
    if answer:
        task.accepted.append(a_label(answer))
    task.update_time.FromDatetime(NOW - timedelta(seconds=ago))
    return task


def a_label(concept: str, score: float | None = None) -> Annotation:
    return Annotation(concept=concept, image_label=ImageLabel(), score=score)


def a_round(
    number: int = 1, *, outcome: RoundOutcome = RoundOutcome.UNDER_WAY, policy_revision: int = 1, **fields: Any
) -> RoundRecord:
    record = RoundRecord(Round(number=number), outcome=outcome, policy_revision=policy_revision)
    return with_updates(record, start_time=NOW - timedelta(minutes=10), **fields)


def a_history(*ended: RoundRecord, decided: dict[str, datetime] | None = None) -> History:
    current = a_round(ended[-1].number + 1 if ended else 1)
    return History(current=current, ended=ended, decided=decided or {})


def an_observed_state(**fields: Any) -> ObservedState:
    """A state that is ready for the first labels."""
    ready = ObservedState(
        dataset=a_dataset(),
        taxonomy=Taxonomy(
            name=TAXONOMY, concepts=[Concept(id="car"), Concept(id="van"), Concept(id="cart", retired=True)]
        ),
        campaign=a_campaign(),
        deployment=a_deployment(scoring=scored(EMBEDDING)),
        stable=a_model(),
    )
    return replace(ready, **fields)


def a_situation(*, observed: ObservedState | None = None, history: History | None = None, **fields: Any) -> Situation:
    policy = fields.pop("policy", None) or a_policy()
    return Situation(
        names=NAMES,
        uid="u",
        policy=policy,
        observed=observed or an_observed_state(),
        history=history or a_history(),
        now=NOW,
        **fields,
    )


def after_round_one(**observed: Any) -> Situation:
    """Version 1 is serving, trained on 50 labels; round 2 is in progress."""
    first = a_round(1, outcome=RoundOutcome.PROMOTED, label_count=50, model_version=version(1))
    ready: dict[str, Any] = {
        "deployment": a_deployment(version(1), scoring=scored(version(1))),
        "stable": a_model(version(1)),
        "campaign": a_campaign(accepted_count=50),
        "dataset": a_dataset(train_labelled_count=50, labelled_count=70),
    }
    return a_situation(observed=an_observed_state(**{**ready, **observed}), history=a_history(first))


def trained(number: int = 2, *, run: TrainingRun | None = None, **observed: object) -> Situation:
    """Round 2 after its training, with version 1 as the champion."""
    succeeded = a_run(number, champion=version(1), comparison=a_comparison(), metrics=some_metrics(0.82))
    return after_round_one(snapshot=a_snapshot(number), runs=(run or succeeded,), **observed)


def command_of(step: Step) -> Command:
    assert step.command is not None, step
    return step.command


def question_of(step: Step) -> SelectItemsRequest:
    assert step.question is not None, step
    return step.question


def answered(situation: Situation, *, control: int = 0, test_items: Sequence[str] = ()) -> Step:
    """Returns the step after the datasets service has returned the requested selections.

    Args:
        test_items: unlabelled items of the test split.
    """
    question = question_of(reconcile(situation))
    if question.split == Split.SPLIT_TEST:
        free = [item for item in test_items if item not in question.excluded]
        drawn = [SelectedItem(item=item) for item in free[: question.count]]
        response = SelectItemsResponse(items=drawn, pool_count=len(free))
    else:
        items = [
            SelectedItem(item=f"{DATASET}/items/s{place}", control=place < control, reason="typical")
            for place in range(question.count)
        ]
        response = SelectItemsResponse(items=items)
    after = replace(situation, observed=situation.observed.with_answer(question, response))
    step = reconcile(after)
    return answered(after, control=control, test_items=test_items) if step.question is not None else step
