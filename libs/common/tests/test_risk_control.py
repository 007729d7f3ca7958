"""Accepted predictions keep their error rate in 95 % of data sets, and without evidence nothing is accepted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from vesta_common.risk_control import (
    CONCEPTS_MAX,
    HELD_OUT_MAX,
    LEVEL_MAX,
    LEVELS,
    HeldOut,
    Limits,
    accept,
    accept_nothing,
    at_most,
    error_interval,
    labels_needed,
    level_of,
    pack,
    unpack,
)
from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_contracts.training.v1 import HeldOutPredictions, ModelVersion

DATA_SETS = 300
CONCEPTS = ("bus", "car", "van")

margins = st.floats(0, 1)
predictions = st.builds(
    HeldOut, margins, st.lists(st.sampled_from(CONCEPTS), unique=True, max_size=2).map(tuple), st.booleans()
)


def right(count: int, margin: float = 0.9, *, wrong: int = 0, concept: str = "car") -> list[HeldOut]:
    """Returns predictions of one margin, the last ones wrong."""
    return [HeldOut(margin, (concept,), place < count - wrong) for place in range(count)]


@pytest.mark.parametrize(("limit", "needed"), [(0.02, 149), (0.01, 299), (0.05, 59), (0.1, 29), (1.0, 1)])
def test_the_number_of_labels_without_an_error_that_a_limit_needs(limit: float, needed: int) -> None:
    assert labels_needed(limit) == needed
    assert accept(right(needed), Limits(limit)).why_not(0.9, ["car"]) == ""
    assert f"at least {needed} held-out labels" in accept(right(needed - 1), Limits(limit)).why_not(0.9, ["car"])


def test_without_evidence_everything_is_uncertain() -> None:
    nothing = accept([], Limits())
    assert nothing.bounds[""].margin_min is None
    assert nothing.why_not(1.0, ["car"]) == "needs at least 149 held-out labels without an error for 2 %; there are 0"


def test_an_error_rate_of_zero_accepts_nothing() -> None:
    assert labels_needed(0) is None
    assert "never" in accept(right(5000), Limits(0)).why_not(1.0, ["car"])


def test_an_error_among_the_most_certain_accepts_nothing() -> None:
    assert "1 are wrong" in accept(right(149, wrong=1), Limits()).why_not(0.9, ["car"])
    assert accept(right(300, wrong=1), Limits()).why_not(0.9, ["car"]) == ""


def test_the_reason_of_a_small_margin_names_the_bound() -> None:
    chosen = accept([*right(200, 0.95), *right(100, 0.1, wrong=30)], Limits())
    assert chosen.why_not(0.96, ["car"]) == ""
    assert "the margin 0.50 is below" in chosen.why_not(0.5, ["car"])
    assert "an error rate of 2 % is kept" in chosen.why_not(0.5, ["car"])
    assert chosen.why_not(0.5, ["car"], "the scores differ by 0.50").startswith("the scores differ by 0.50: the margin")


def test_a_concept_with_its_own_limit_is_tested_alone() -> None:
    evidence = [*right(400, concept="car"), *right(60, concept="bus", wrong=1)]
    chosen = accept(evidence, Limits(0.02, {"bus": 0.1}))
    assert chosen.why_not(0.9, ["bus"]) == ""
    assert chosen.why_not(0.9, ["car"]) == ""
    assert "that predict 'bus'" in accept(evidence, Limits(0.02, {"bus": 0.01})).why_not(0.9, ["bus"])


def test_the_smallest_limit_of_several_concepts_decides() -> None:
    limits = Limits(0.05, {"bus": 0.01, "van": 0.2})
    assert [limits.group(concepts) for concepts in (["bus", "van"], ["car", "van"], ["van"], [])] == [
        "bus",
        "",
        "van",
        "",
    ]


def test_several_limits_need_more_labels() -> None:
    several = accept(right(149), Limits(0.02, {"bus": 0.02}))
    assert "needs at least 183 held-out labels" in several.why_not(0.9, ["car"])


@pytest.mark.parametrize("size", [160, 600])
@pytest.mark.parametrize("limit", [0.02, 0.1])
@pytest.mark.parametrize("shape", ["calibrated", "overconfident", "worst when certain", "at the limit"])
def test_the_error_rate_exceeds_the_limit_in_at_most_one_of_twenty_data_sets(
    size: int, limit: float, shape: str
) -> None:
    generator = random.Random(f"{size} {limit} {shape}")
    # The margins of live predictions are those of LEVELS, equally often. The error rate of each level:
    rates = {
        "calibrated": [(1 - margin) / 2 for margin in LEVELS],
        "overconfident": [min(1.0, 3 * limit * (1 - margin) + limit * 0.8) for margin in LEVELS],
        "worst when certain": [limit * (0.5 + level / LEVEL_MAX) for level in range(LEVEL_MAX + 1)],
        "at the limit": [limit * 1.0001] * (LEVEL_MAX + 1),
    }[shape]
    exceeded = 0
    for _ in range(DATA_SETS):
        levels = generator.choices(range(LEVEL_MAX + 1), k=size)
        chosen = accept(
            [HeldOut(LEVELS[level], (), generator.random() >= rates[level]) for level in levels], Limits(limit)
        )
        if (level := chosen.bounds[""].level) is not None:
            accepted = rates[level:]
            exceeded += sum(accepted) / len(accepted) > limit
    assert exceeded <= binom.ppf(0.999, DATA_SETS, 0.05)


@settings(max_examples=50)
@given(st.lists(predictions, max_size=400), st.floats(0.001, 0.5), st.floats(0.001, 0.5), margins, margins)
def test_a_larger_margin_or_a_larger_limit_never_accepts_less(
    evidence: list[HeldOut], first: float, second: float, low: float, high: float
) -> None:
    (low, high), chosen = sorted((low, high)), accept(evidence, Limits(first))
    assert bool(chosen.why_not(low, [])) >= bool(chosen.why_not(high, []))
    # More correct predictions never raise the bound.
    improved = [HeldOut(one.margin, one.concepts, True) for one in evidence]
    better = accept(improved, Limits(first)).bounds[""].level
    assert chosen.bounds[""].level is None or (better is not None and better <= chosen.bounds[""].level)
    assert labels_needed(max(first, second)) <= labels_needed(min(first, second))  # type: ignore[operator]


@given(st.integers(0, 60), st.integers(0, 2000), st.floats(0, 1))
def test_the_binomial_tail_agrees_with_scipy(errors: int, trials: int, rate: float) -> None:
    assert at_most(errors, trials, rate) == pytest.approx(binom.cdf(errors, trials, rate), abs=1e-9)


@given(st.integers(1, 300).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_the_interval_of_an_error_rate_agrees_with_scipy(counts: tuple[int, int]) -> None:
    estimate, expected = error_interval(*counts), binomtest(*counts).proportion_ci(method="exact")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_an_error_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        error_interval(0, 0)


def test_fixed_bounds_replace_the_limits_of_a_policy() -> None:
    one_label = ModelVersion(concepts=CONCEPTS)
    assert Limits.of(UncertaintyPolicy(score_certain=0.9), one_label) is None
    assert Limits.of(UncertaintyPolicy(margin_certain=0.0), one_label) is None
    assert Limits.of(UncertaintyPolicy(), one_label) == Limits(0.02, {})
    policy = UncertaintyPolicy(error_rate_max=0.0, concept_error_rates_max={"bus": 0.1, "gone": 0.1})
    assert Limits.of(policy, one_label) == Limits(0.0, {"bus": 0.1})
    several_labels = ModelVersion(concepts=CONCEPTS, thresholds=[0.5, 0.5, 0.5])
    assert Limits.of(UncertaintyPolicy(score_certain=0.9), several_labels) == Limits(0.02, {})


def test_nothing_is_accepted_for_a_reason() -> None:
    nothing = accept_nothing(Limits(0.02, {"bus": 0.1}), "there is no model")
    assert {nothing.why_not(1.0, concepts) for concepts in ([], ["bus"], ["car"])} == {"there is no model"}


@given(st.lists(predictions, max_size=50))
def test_packed_evidence_gives_the_same_bounds(evidence: list[HeldOut]) -> None:
    unpacked = unpack(pack(evidence, CONCEPTS, drawn_at_random=True), CONCEPTS)
    assert [(level_of(one.margin), one.concepts, one.is_correct) for one in unpacked] == [
        (level_of(one.margin), one.concepts, one.is_correct) for one in evidence
    ]
    limits = Limits(0.3, {"bus": 0.5})
    assert accept(unpacked, limits).bounds == accept(evidence, limits).bounds


def test_packed_evidence_is_bounded() -> None:
    message = pack(right(HELD_OUT_MAX + 1), CONCEPTS, drawn_at_random=True)
    assert len(message.levels) == HELD_OUT_MAX
    assert message.ByteSize() < 32 * 1024
    concepts = tuple(str(number) for number in range(100))
    many = pack([HeldOut(0.5, concepts, True)] * 1000, concepts, drawn_at_random=True)
    assert len(many.concepts) == CONCEPTS_MAX


@pytest.mark.parametrize(
    "message",
    [
        HeldOutPredictions(levels=[1], correct=[True], concept_counts=[1], concepts=[3]),
        HeldOutPredictions(levels=[101], correct=[True], concept_counts=[0]),
        HeldOutPredictions(levels=[1], correct=[True], concept_counts=[2], concepts=[0]),
        HeldOutPredictions(levels=[1, 2], correct=[True], concept_counts=[0]),
    ],
)
def test_inconsistent_evidence_is_rejected(message: HeldOutPredictions) -> None:
    with pytest.raises(ValueError, match=r"held-out|argument"):
        unpack(message, CONCEPTS)
