"""Every field of a LoopPolicy has an effect, at creation or after an update."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from conductor_builders import (
    DATASET,
    EMBEDDING,
    NAMES,
    a_campaign,
    a_comparison,
    a_dataset,
    a_deployment,
    a_policy,
    a_run,
    a_situation,
    a_snapshot,
    after_round_one,
    an_observed_state,
    command_of,
    question_of,
    scored,
    trained,
    version,
)
from google.protobuf.duration_pb2 import Duration
from vesta_conductor.reconciliation.labelling_stage import LabellingProgress
from vesta_conductor.reconciliation.policy import Policy
from vesta_conductor.reconciliation.reconcile import reconcile
from vesta_contracts.conductor.v1 import Gate, LoopPolicy
from vesta_contracts.datasets.v1 import SelectionStrategy
from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_contracts.training.v1 import TrainingRun


def selected(policy: Policy) -> Any:
    return question_of(reconcile(a_situation(policy=policy)))


def opened(policy: Policy) -> Any:
    return command_of(reconcile(a_situation(policy=policy, observed=an_observed_state(campaign=None)))).request.campaign  # type: ignore[union-attr]


def deployed(policy: Policy) -> Any:
    run = TrainingRun(name=NAMES.embedding_run(1), state=TrainingRun.SUCCEEDED, model_version=EMBEDDING)
    observed = an_observed_state(deployment=None, stable=None, embedding_runs=(run,))
    return command_of(reconcile(a_situation(policy=policy, observed=observed))).request.deployment.uncertainty  # type: ignore[union-attr]


def ordered(policy: Policy) -> Any:
    situation = after_round_one(snapshot=a_snapshot(2), runs=())
    return command_of(reconcile(replace(situation, policy=policy))).request.training_run  # type: ignore[union-attr]


def judged(policy: Policy) -> bool:
    run = a_run(2, champion=version(1), comparison=a_comparison(-0.02))
    return command_of(reconcile(replace(trained(run=run), policy=policy))).action != "keep_champion"


def trains_after_ten(policy: Policy) -> bool:
    situation = a_situation(policy=policy, observed=an_observed_state(dataset=a_dataset(train_labelled_count=10)))
    step = reconcile(situation)
    return step.command is not None and step.command.action == "snapshot"


def missing_test(policy: Policy) -> int:
    return LabellingProgress.of(a_situation(policy=policy)).missing_test


# A value for each field, and its effect.
EFFECTS: Mapping[str, tuple[Any, Callable[[Policy], Any]]] = {
    "dataset": (f"{DATASET}-new", lambda policy: selected(policy).parent),
    "label_budget": (30, lambda policy: a_situation(policy=policy).affordable_tasks),
    "batch_size": (20, lambda policy: selected(policy).count),
    "retrain_after": (10, trains_after_ten),
    "control_share": (0.4, lambda policy: selected(policy).control_share),
    "recipe": ("projects/acme/recipes/mine", lambda policy: ordered(policy).recipe),
    "annotators_per_task": (3, lambda policy: opened(policy).annotators_per_task),
    "review_share": (0.25, lambda policy: opened(policy).review_share),
    "gate": (Gate(accuracy_loss_max=0.05), judged),
    "instructions": ("Vans have no rear window.", lambda policy: opened(policy).instructions),
    "test_labels": (60, missing_test),
    "score_certain": (0.9, lambda policy: deployed(policy).score_certain),
    "margin_certain": (0.3, lambda policy: deployed(policy).margin_certain),
    "score_threshold": (0.6, lambda policy: deployed(policy).score_threshold),
    "error_rate_max": (0.05, lambda policy: deployed(policy).error_rate_max),
    "concept_error_rates_max": ({"van": 0.1}, lambda policy: dict(deployed(policy).concept_error_rates_max)),
    "strategy": (SelectionStrategy.SELECTION_STRATEGY_MARGIN, lambda policy: selected(policy).strategy),
    "lease_duration": (Duration(seconds=90), lambda policy: opened(policy).lease_duration.seconds),
}


def test_the_table_contains_every_field_of_the_policy() -> None:
    assert set(EFFECTS) == {field.name for field in LoopPolicy.DESCRIPTOR.fields}


@pytest.mark.parametrize("field", [name for name in EFFECTS if name != "dataset"])
def test_every_field_affects_a_decision_of_the_loop(field: str) -> None:
    value, decided = EFFECTS[field]
    assert decided(a_policy(**{field: value})) != decided(a_policy())


@pytest.mark.parametrize(
    "field", ["control_share", "strategy", "recipe", "annotators_per_task", "review_share", "instructions"]
)
def test_a_value_is_sent_as_configured(field: str) -> None:
    value, decided = EFFECTS[field]
    assert decided(a_policy(**{field: value})) == value


@pytest.mark.parametrize("field", ["review_share", "instructions", "lease_duration"])
def test_an_updated_policy_is_applied_to_the_existing_campaign(field: str) -> None:
    value, _ = EFFECTS[field]
    command = command_of(reconcile(a_situation(policy=a_policy(**{field: value}))))
    assert command.action == "adjust_campaign"
    request: Any = command.request
    assert list(request.update_mask.paths) == [field]
    assert getattr(request.campaign, field) == value


@pytest.mark.parametrize("field", ["score_certain", "margin_certain", "score_threshold", "error_rate_max"])
def test_an_updated_policy_is_applied_to_the_existing_deployment_and_keeps_its_other_thresholds(field: str) -> None:
    value, _ = EFFECTS[field]
    own = UncertaintyPolicy(score_threshold=0.4, score_certain=0.7, margin_certain=0.1)
    observed = an_observed_state(deployment=a_deployment(scoring=scored(EMBEDDING), uncertainty=own))
    command = command_of(reconcile(a_situation(policy=a_policy(**{field: value}), observed=observed)))
    assert command.action == "adjust_deployment"
    request: Any = command.request
    assert list(request.update_mask.paths) == ["uncertainty"]
    expected = UncertaintyPolicy()
    expected.CopyFrom(own)
    setattr(expected, field, value)
    assert request.deployment.uncertainty == expected


def test_error_rates_of_concepts_replace_those_of_the_deployment() -> None:
    own = UncertaintyPolicy(error_rate_max=0.1, concept_error_rates_max={"car": 0.2})
    observed = an_observed_state(deployment=a_deployment(scoring=scored(EMBEDDING), uncertainty=own))
    request: Any = command_of(
        reconcile(a_situation(policy=a_policy(concept_error_rates_max={"van": 0.05}), observed=observed))
    ).request
    assert request.deployment.uncertainty == UncertaintyPolicy(
        error_rate_max=0.1, concept_error_rates_max={"van": 0.05}
    )


def test_unset_fields_of_the_policy_do_not_change_campaign_and_deployment() -> None:
    own = UncertaintyPolicy(score_threshold=0.4, score_certain=0.7, margin_certain=0.1)
    observed = an_observed_state(
        campaign=a_campaign(lease_duration=Duration(seconds=30)),
        deployment=a_deployment(scoring=scored(EMBEDDING), uncertainty=own),
    )
    assert reconcile(a_situation(observed=observed)).question is not None
