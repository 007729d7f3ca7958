"""The status of a Loop without measurements."""

from dataclasses import replace
from typing import Any

from conductor_builders import (
    a_dataset,
    a_history,
    a_model,
    a_run,
    a_situation,
    a_snapshot,
    after_round_one,
    an_observed_state,
    trained,
    version,
)
from vesta_common.messages import copy_of
from vesta_conductor.reconciliation.control_arm import ControlAnswer
from vesta_conductor.reconciliation.reconcile import reconcile
from vesta_conductor.reconciliation.state import Situation
from vesta_conductor.reconciliation.status import status_of
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.serving.v1 import AutomaticAcceptance
from vesta_contracts.training.v1 import Metrics, ModelVersion

UNMEASURED = ModelVersion(name=version(1), task="classification")


def shown(situation: Situation) -> LoopStatus:
    return status_of(situation, reconcile(situation))


def test_the_status_of_a_measured_champion_has_metrics_and_no_message() -> None:
    status = shown(after_round_one())
    assert status.champion_metrics.accuracy.value == 0.8
    assert "is unknown" not in status.message


def test_the_status_of_an_unmeasured_champion_has_a_message_and_no_metrics() -> None:
    for model in (UNMEASURED, ModelVersion(name=version(1), task="classification", metrics=Metrics())):
        status = shown(after_round_one(stable=model))
        assert not status.HasField("champion_metrics")
        assert "The accuracy of version 1 is unknown" in status.message


def test_the_status_reports_a_missing_test_split_from_the_first_item_on() -> None:
    without = a_dataset(test_item_count=0, test_labelled_count=0)
    assert "No item is in the test split" in shown(a_situation(observed=an_observed_state(dataset=without))).message
    assert "test split" not in shown(a_situation()).message
    empty = a_dataset(item_count=0, test_item_count=0)
    assert "test split" not in shown(a_situation(observed=an_observed_state(dataset=empty))).message


def test_an_embedding_model_is_not_reported_as_unmeasured_champion() -> None:
    status = shown(a_situation(observed=an_observed_state(stable=a_model())))
    assert not status.HasField("champion_metrics")
    assert "is unknown" not in status.message


def test_a_round_without_test_labels_has_no_metrics_and_a_verdict_with_the_reason() -> None:
    unmeasured = a_run(1)
    unmeasured.ClearField("metrics")
    first = a_situation(observed=an_observed_state(snapshot=a_snapshot(1), runs=(unmeasured,)), history=a_history())
    step = reconcile(first)
    assert step.round is not None
    assert not step.round.round.HasField("metrics")
    assert "accuracy is unknown" in step.round.round.verdict.reason
    measured = reconcile(trained()).round
    assert measured is not None
    assert measured.round.metrics.accuracy.value == 0.82


def test_the_status_reports_the_errors_of_certain_predictions_and_warns_above_the_limit() -> None:
    def checked(wrong: int) -> LoopStatus:
        control = tuple(
            ControlAnswer(version(1), frozenset({"car"}), is_correct=place >= wrong, is_certain=True)
            for place in range(100)
        )
        situation = after_round_one()
        return shown(replace(situation, observed=replace(situation.observed, control=control)))

    kept, exceeded, unknown = checked(2), checked(20), shown(after_round_one())
    assert kept.accepted_errors.error_rate.value == 0.02
    assert "2.0 % (0.2 to 7.0 %) of the certain predictions were wrong in 100 blind checks." in kept.message
    assert (kept.accepted_errors.exceeded, exceeded.accepted_errors.exceeded) == (False, True)
    assert "Too many predictions are wrong that need no human: 20.0 %" in exceeded.message
    assert "and 2 % are allowed" in exceeded.message
    assert not unknown.HasField("accepted_errors")


def test_the_status_states_why_no_prediction_is_certain() -> None:
    def said(**acceptance: Any) -> str:
        situation = after_round_one()
        deployment = situation.observed.deployment
        assert deployment is not None
        changed = copy_of(deployment)
        changed.acceptance.CopyFrom(AutomaticAcceptance(message="needs at least 149 held-out labels", **acceptance))
        return shown(replace(situation, observed=replace(situation.observed, deployment=changed))).message

    assert "needs at least 149 held-out labels" in said()
    assert "held-out labels" not in said(margin_min=0.5)
    assert "held-out labels" not in shown(after_round_one()).message
