"""The gate: whether a challenger replaces the champion."""

import pytest
from conductor_builders import a_comparison, some_metrics, version
from vesta_conductor.reconciliation import gate
from vesta_conductor.task_types import LoopTask
from vesta_conductor.task_types.classification import Classification
from vesta_conductor.task_types.detection import Detection
from vesta_conductor.task_types.instance_segmentation import InstanceSegmentation
from vesta_conductor.task_types.semantic_segmentation import SemanticSegmentation
from vesta_contracts.conductor.v1 import Gate, GateVerdict
from vesta_contracts.training.v1 import Comparison, Estimate, Metrics

METRICS = some_metrics(0.82)
STRICT = 0.0


def judge(
    policy: Gate,
    metrics: Metrics,
    champion: str,
    comparison: Comparison | None,
    missing_reason: str = "",
    task_type: LoopTask = Classification(),  # noqa: B008 - it has no state
) -> GateVerdict:
    return gate.judge(policy, metrics, champion, comparison, missing_reason, task_type=task_type)


def overall(value: float, low: float, high: float, items: int = 987) -> Comparison:
    comparison = a_comparison(value, items=items)
    comparison.difference.CopyFrom(Estimate(value=value, low=low, high=high))
    return comparison


def test_the_first_model_passes_and_its_accuracy_is_reported() -> None:
    verdict = judge(Gate(), METRICS, "", None)
    assert verdict.passed
    assert "no champion" in verdict.reason
    assert "82.0 %" in verdict.reason


def test_the_first_model_passes_without_metrics() -> None:
    verdict = judge(Gate(), Metrics(), "", None)
    assert verdict.passed
    assert "no test item is labelled" in verdict.reason


@pytest.mark.parametrize(
    "cause", ["the champion is of task multilabel", "no item of the test split is labelled", "its file is gone"]
)
def test_without_a_comparison_the_champion_stays_for_the_reason_of_the_training(cause: str) -> None:
    verdict = judge(Gate(), METRICS, version(1), None, cause)
    assert not verdict.passed
    assert cause in verdict.reason


def test_a_missing_comparison_without_a_reason_is_reported() -> None:
    assert "and no reason" in judge(Gate(), METRICS, version(1), None).reason


def test_an_insignificant_loss_passes_by_default_and_fails_the_strict_policy() -> None:
    comparison = overall(-0.001, -0.014, 0.012)
    assert judge(Gate(), METRICS, version(1), comparison).passed
    assert not judge(Gate(accuracy_loss_max=STRICT), METRICS, version(1), comparison).passed


@pytest.mark.parametrize(
    ("difference", "loss_max", "passes"),
    [
        (0.02, None, True),
        (0.0, STRICT, True),
        (-1e-12, STRICT, True),
        (-0.001, STRICT, False),
        (-0.005, None, True),
        (-0.006, None, False),  # not significant
        (-0.01, 0.01, True),
        (-0.011, 0.01, False),
        (-0.2, 1.0, True),
    ],
)
def test_the_overall_loss_may_reach_the_tolerance_of_the_policy(
    difference: float, loss_max: float | None, passes: bool
) -> None:
    comparison = overall(difference, difference - 0.3, difference + 0.3)
    verdict = judge(Gate(accuracy_loss_max=loss_max), METRICS, version(1), comparison)
    assert verdict.passed == passes
    assert "80.0 %" in verdict.reason
    assert passes or "accuracy_loss_max" in verdict.reason


@pytest.mark.parametrize("loss_max", [None, STRICT, 0.05, 1.0])
def test_a_significant_loss_above_the_tolerance_is_rejected(loss_max: float | None) -> None:
    verdict = judge(Gate(accuracy_loss_max=loss_max), METRICS, version(1), overall(-0.004, -0.007, -0.001))
    assert not verdict.passed
    assert "significantly worse" in verdict.reason


@pytest.mark.parametrize(
    ("recalls", "allowed", "passes"),
    [
        ({"van": (-0.2, 0.01)}, False, True),  # not significant
        ({"van": (-0.2, 0.0)}, False, True),
        ({"van": (-0.2, -0.05)}, False, False),
        ({"van": (-0.2, -0.05)}, True, True),
        ({"car": (0.3, 0.4), "van": (-0.2, -0.05)}, False, False),
    ],
)
def test_no_concept_may_lose_more_than_its_interval(
    recalls: dict[str, tuple[float, float]], allowed: bool, passes: bool
) -> None:
    verdict = judge(Gate(concept_loss_allowed=allowed), METRICS, version(1), a_comparison(0.05, recalls))
    assert verdict.passed == passes
    assert passes or "van" in verdict.reason


def test_the_worst_of_many_worse_concepts_are_named() -> None:
    recalls = {f"c{number}": (-0.1 * number, -0.01) for number in range(1, 7)}
    reason = judge(Gate(), METRICS, version(1), a_comparison(0.05, recalls)).reason
    assert "c6" in reason
    assert "and 3 more" in reason
    assert "c1 " not in reason


def average_precision(value: float) -> Metrics:
    return Metrics(item_count=100, mean_average_precision_50=Estimate(value=value, low=value - 0.1, high=value + 0.1))


def test_detectors_are_judged_by_their_mean_average_precision() -> None:
    comparison = a_comparison(-0.03, {"van": (-0.2, -0.05)})
    comparison.champion_metrics.CopyFrom(average_precision(0.85))
    judged = [
        judge(Gate(accuracy_loss_max=loss), average_precision(0.82), version(1), comparison, task_type=Detection())
        for loss in (0.005, 1.0)
    ]
    assert not any(verdict.passed for verdict in judged)
    assert "loses more mAP@50" in judged[0].reason
    assert "mAP@50 82.0 % against 85.0 %" in judged[0].reason
    assert "significantly lower average precision for van" in judged[1].reason
    assert "mAP@50 82.0 %" in judge(Gate(), average_precision(0.82), "", None, task_type=Detection()).reason


def test_segmentation_is_judged_by_the_metric_of_its_masks() -> None:
    instances = judge(Gate(), average_precision(0.82), "", None, task_type=InstanceSegmentation())
    assert "mask mAP@50 82.0 %" in instances.reason
    pixels = Metrics(item_count=100, mean_iou=Estimate(value=0.7, low=0.6, high=0.8))
    assert "mIoU 70.0 %" in judge(Gate(), pixels, "", None, task_type=SemanticSegmentation()).reason
