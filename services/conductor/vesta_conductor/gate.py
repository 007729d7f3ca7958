"""The gate: whether a challenger may take the champion's place."""

from vesta_contracts.conductor.v1 import Gate, GateVerdict
from vesta_contracts.training.v1 import Comparison, Metrics

ROUNDING = 1e-9  # accuracies are ratios of counts: differences this small are none
CONCEPTS_NAMED_MAX = 3


def judge(gate: Gate, metrics: Metrics, champion: str, comparison: Comparison | None) -> GateVerdict:
    """Lets the challenger pass unless it is worse overall, or in any concept by more than chance explains.

    Both were measured on the same items, the test side of one snapshot.

    Args:
        gate: what may be lost.
        metrics: the challenger's own.
        champion: the version it was to be compared with; empty where none was there, so that anything passes.
        comparison: challenger less champion; None where training could not compare them.
    """
    if not champion:
        return GateVerdict(passed=True, reason=_first(metrics))
    if comparison is None or not comparison.champion_metrics.item_count:
        return GateVerdict(
            passed=False,
            reason="Nothing on the test side is labelled, so that nobody can tell whether the challenger is better; "
            "the champion stays. Give the dataset a test side, or label some of its items.",
        )
    difference = comparison.accuracy_difference
    overall = (
        f"accuracy {_percent(metrics.accuracy.value)} against {_percent(comparison.champion_metrics.accuracy.value)} "
        f"({_points(difference.value)}, 95 % interval {_points(difference.low)} to {_points(difference.high)}) "
        f"on {comparison.champion_metrics.item_count} test items"
    )
    if difference.value < -gate.accuracy_loss_max - ROUNDING:
        return GateVerdict(passed=False, reason=f"Worse overall, so the champion stays: {overall}.")
    worse = [concept for concept in comparison.concepts if concept.recall_difference.high < -ROUNDING]
    if worse and not gate.concept_loss_allowed:
        named = ", ".join(
            f"{concept.concept} ({_points(concept.recall_difference.value)}, "
            f"at the best {_points(concept.recall_difference.high)}, {concept.item_count} items)"
            for concept in sorted(worse, key=lambda concept: concept.recall_difference.value)[:CONCEPTS_NAMED_MAX]
        )
        more = f" and {len(worse) - CONCEPTS_NAMED_MAX} more" if len(worse) > CONCEPTS_NAMED_MAX else ""
        return GateVerdict(
            passed=False,
            reason=f"Finds fewer of {named}{more} than chance explains, so the champion stays; overall {overall}.",
        )
    return GateVerdict(passed=True, reason=f"Not worse: {overall}.")


def _first(metrics: Metrics) -> str:
    if not metrics.item_count:
        return "The first model; nothing on the test side is labelled, so that its accuracy is not known."
    return f"The first model: accuracy {_percent(metrics.accuracy.value)} on {metrics.item_count} test items."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"
