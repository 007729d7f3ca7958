"""Whether a challenger may take the champion's place."""

import pytest
from conductor_builders import a_comparison, some_metrics, version
from vesta_conductor.gate import judge
from vesta_contracts.conductor.v1 import Gate
from vesta_contracts.training.v1 import Metrics

METRICS = some_metrics(0.82)


def test_the_first_model_passes_and_its_accuracy_is_told() -> None:
    verdict = judge(Gate(), METRICS, "", None)
    assert verdict.passed
    assert "82.0 %" in verdict.reason


def test_the_first_model_passes_unmeasured_too() -> None:
    assert judge(Gate(), Metrics(), "", None).passed


@pytest.mark.parametrize("comparison", [None, a_comparison(items=0)])
def test_without_test_labels_the_champion_stays(comparison: object) -> None:
    verdict = judge(Gate(), METRICS, version(1), comparison)  # type: ignore[arg-type]
    assert not verdict.passed
    assert "test side" in verdict.reason


@pytest.mark.parametrize(
    ("difference", "loss_max", "passes"),
    [
        (0.02, 0.0, True),
        (0.0, 0.0, True),
        (-1e-12, 0.0, True),
        (-0.01, 0.0, False),
        (-0.01, 0.01, True),
        (-0.011, 0.01, False),
    ],
)
def test_overall_it_may_lose_what_the_policy_allows(difference: float, loss_max: float, passes: bool) -> None:
    verdict = judge(Gate(accuracy_loss_max=loss_max), METRICS, version(1), a_comparison(difference))
    assert verdict.passed == passes
    assert "80.0 %" in verdict.reason


@pytest.mark.parametrize(
    ("recalls", "allowed", "passes"),
    [
        ({"van": (-0.2, 0.01)}, False, True),  # chance explains it
        ({"van": (-0.2, 0.0)}, False, True),
        ({"van": (-0.2, -0.05)}, False, False),
        ({"van": (-0.2, -0.05)}, True, True),
        ({"car": (0.3, 0.4), "van": (-0.2, -0.05)}, False, False),
    ],
)
def test_no_concept_may_fall_beyond_its_interval(
    recalls: dict[str, tuple[float, float]], allowed: bool, passes: bool
) -> None:
    verdict = judge(Gate(concept_loss_allowed=allowed), METRICS, version(1), a_comparison(0.05, recalls))
    assert verdict.passed == passes
    assert passes or "van" in verdict.reason


def test_of_many_worse_concepts_the_worst_are_named() -> None:
    recalls = {f"c{number}": (-0.1 * number, -0.01) for number in range(1, 7)}
    reason = judge(Gate(), METRICS, version(1), a_comparison(0.05, recalls)).reason
    assert "c6" in reason
    assert "and 3 more" in reason
    assert "c1 " not in reason
