"""The gate: decides whether a challenger replaces the champion."""

from vesta_contracts.conductor.v1 import Gate, GateVerdict
from vesta_contracts.training.v1 import Comparison, Metrics

from vesta_conductor.task_types import LoopTask

ROUNDING = 1e-9  # metrics are ratios of counts; a smaller difference is a rounding error
ACCURACY_LOSS_MAX_DEFAULT = 0.005  # 0.5 points
CONCEPTS_NAMED_MAX = 3
NO_REASON = "the training run has no comparison and no reason"


def judge(
    gate: Gate,
    metrics: Metrics,
    champion: str,
    comparison: Comparison | None,
    missing_reason: str = "",
    *,
    task_type: LoopTask,
) -> GateVerdict:
    """Rejects a challenger that is significantly worse, overall or for one concept, or that loses more of the primary metric than allowed.

    Significantly worse means that the paired 95 % interval of the difference lies entirely below zero. Both models are measured on the
    test split of one snapshot.

    Args:
        gate: the policy.
        metrics: of the challenger.
        champion: the version to compare with; empty if there is none, in which case the challenger passes.
        comparison: challenger minus champion; None if training could not compare them.
        missing_reason: why there is no comparison, as reported by the training service.
        task_type: names the primary metric and reads it.
    """
    if not champion:
        return GateVerdict(passed=True, reason=_first(metrics, task_type))
    if comparison is None:
        return GateVerdict(
            passed=False,
            reason=f"The champion stays. No comparison: {missing_reason or NO_REASON}.",
        )
    difference = comparison.difference
    overall = (
        f"{task_type.metric} {_percent(task_type.quality(metrics).value)} against "
        f"{_percent(task_type.quality(comparison.champion_metrics).value)} "
        f"({_points(difference.value)}, 95 % interval {_points(difference.low)} to {_points(difference.high)}) "
        f"on {comparison.champion_metrics.item_count} test items"
    )
    if difference.high < -ROUNDING:
        return GateVerdict(
            passed=False,
            reason=f"The champion stays. The challenger is significantly worse overall: {overall}.",
        )
    allowed = gate.accuracy_loss_max if gate.HasField("accuracy_loss_max") else ACCURACY_LOSS_MAX_DEFAULT
    if difference.value < -allowed - ROUNDING:
        return GateVerdict(
            passed=False,
            reason=f"The champion stays. The challenger loses more {task_type.metric} than accuracy_loss_max "
            f"allows ({100 * allowed:g} points): {overall}.",
        )
    worse = [concept for concept in comparison.concepts if concept.difference.high < -ROUNDING]
    if worse and not gate.concept_loss_allowed:
        named = ", ".join(
            f"{concept.concept} ({_points(concept.difference.value)}, "
            f"at the best {_points(concept.difference.high)}, {concept.item_count} items)"
            for concept in sorted(worse, key=lambda concept: concept.difference.value)[:CONCEPTS_NAMED_MAX]
        )
        more = f" and {len(worse) - CONCEPTS_NAMED_MAX} more" if len(worse) > CONCEPTS_NAMED_MAX else ""
        return GateVerdict(
            passed=False,
            reason=f"The champion stays. The challenger has significantly lower {task_type.concept_metric} for {named}{more}; "
            f"overall {overall}.",
        )
    return GateVerdict(passed=True, reason=f"Not worse: {overall}.")


def _first(metrics: Metrics, task_type: LoopTask) -> str:
    """Returns the reason for the verdict on the first model."""
    if not metrics.item_count:
        return f"First model, no champion. Its {task_type.metric} is unknown because no test item is labelled."
    value = _percent(task_type.quality(metrics).value)
    return f"First model, no champion: {task_type.metric} {value} on {metrics.item_count} test items."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"
