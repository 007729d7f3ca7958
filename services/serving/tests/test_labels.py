"""From probabilities to predictions: tables for policies, properties for all models."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.errors import InvalidArgument
from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_serving.labels import Policy, Vocabulary, check_thresholds, score
from vesta_serving.triton.repository import model_configuration, whole_name

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONCEPTS = ("red", "green", "blue")
SINGLE, MULTI = Vocabulary("v", CONCEPTS), Vocabulary("v", CONCEPTS, (0.5, 0.3, 0.7))


def answered(probabilities: list[float], vocabulary: Vocabulary) -> tuple[list[str], list[str], bool, float]:
    found = score(np.array(probabilities, np.float32), vocabulary, Policy(), NOW)
    kept = [one for one in found.scores if one.predicted]
    discarded = [one for one in found.scores if not one.predicted]
    names = [entry.concept for entry in kept], [entry.concept for entry in discarded]
    return (*names, found.uncertain, round(found.margin, 3))


@pytest.mark.parametrize(
    ("probabilities", "kept", "discarded", "uncertain", "margin"),
    [
        ([0.9, 0.07, 0.03], ["red"], ["green", "blue"], False, 0.83),
        ([0.03, 0.07, 0.9], ["blue"], ["green", "red"], False, 0.83),
        ([0.55, 0.4, 0.05], ["red"], ["green", "blue"], True, 0.15),
        ([0.7, 0.2, 0.1], ["red"], ["green", "blue"], True, 0.5),
        ([0.4, 0.35, 0.25], [], ["red", "green", "blue"], True, 0.05),
    ],
)
def test_a_single_label_model_predicts_at_most_its_best_concept(
    probabilities: list[float], kept: list[str], discarded: list[str], uncertain: bool, margin: float
) -> None:
    assert answered(probabilities, SINGLE) == (kept, discarded, uncertain, margin)


@pytest.mark.parametrize(
    ("probabilities", "kept", "discarded", "uncertain", "margin"),
    [
        ([0.9, 0.9, 0.1], ["red", "green"], ["blue"], False, 0.8),
        ([0.1, 0.1, 0.1], [], ["red", "green", "blue"], False, 0.667),
        ([0.9, 0.32, 0.1], ["red", "green"], ["blue"], True, 0.029),
        ([0.9, 0.9, 0.68], ["red", "green"], ["blue"], True, 0.029),
    ],
)
def test_a_multi_label_model_predicts_each_concept_from_its_own_threshold(
    probabilities: list[float], kept: list[str], discarded: list[str], uncertain: bool, margin: float
) -> None:
    assert answered(probabilities, MULTI) == (kept, discarded, uncertain, margin)


@pytest.mark.parametrize(
    ("probabilities", "kept", "uncertain", "margin"),
    [
        ([0.06, 0.0, 0.94], ["red"], True, 0.011),
        ([0.0, 0.0, 0.0], [], False, 1.0),
        ([1.0, 1.0, 1.0], ["red", "green", "blue"], False, 1.0),
        ([0.2, 0.4, 0.7], ["red"], True, 0.158),
        ([0.4, 0.1, 0.6], ["red"], False, 0.368),
    ],
)
def test_thresholds_far_from_one_half_decide_the_prediction_and_its_uncertainty(
    probabilities: list[float], kept: list[str], uncertain: bool, margin: float
) -> None:
    found = answered(probabilities, Vocabulary("v", CONCEPTS, (0.05, 0.5, 0.95)))
    assert (sorted(found[0]), found[2], found[3]) == (sorted(kept), uncertain, margin)


def test_thresholds_of_the_deployment_override_those_of_the_version() -> None:
    policy = Policy.of(UncertaintyPolicy(thresholds={"red": 0.9, "gone": 0.1}))
    found = score(np.array([0.8, 0.4, 0.6], np.float32), MULTI, policy, NOW)

    assert [label.concept for label in found.scores if label.predicted] == ["green"]
    assert {one.concept: round(one.threshold, 3) for one in found.scores} == {"red": 0.9, "green": 0.3, "blue": 0.7}


@pytest.mark.parametrize(
    ("thresholds", "vocabulary", "reason"),
    [
        ({"red": 0.2, "pink": 0.3}, MULTI, "THRESHOLD_CONCEPT_UNKNOWN"),
        ({"red": 0.2}, SINGLE, "MODEL_NOT_MULTI_LABEL"),
    ],
)
def test_thresholds_that_the_model_cannot_use_are_rejected(
    thresholds: dict[str, float], vocabulary: Vocabulary, reason: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_thresholds(thresholds, vocabulary)
    assert refused.value.reason == reason


def test_a_single_label_model_has_no_thresholds() -> None:
    check_thresholds({}, SINGLE)
    found = score(np.array([0.9, 0.05, 0.05], np.float32), SINGLE, Policy(), NOW)
    assert not any(one.HasField("threshold") for one in found.scores)


def test_a_model_that_only_embeds_has_no_certain_prediction() -> None:
    assert answered([], Vocabulary("v", ())) == ([], [], True, 0.0)


def test_the_margin_of_a_model_with_one_concept_is_its_score() -> None:
    assert answered([0.9], Vocabulary("v", ("van",))) == (["van"], [], False, 0.9)


def test_a_policy_keeps_explicit_zeros_and_uses_defaults_otherwise() -> None:
    assert Policy.of(UncertaintyPolicy(score_certain=0.0)) == Policy(score_certain=0.0)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), st.booleans())
def test_every_concept_is_returned_once_best_first(probabilities: list[float], multi: bool) -> None:
    concepts = tuple(f"c{index}" for index in range(len(probabilities)))
    vocabulary = Vocabulary("v", concepts, tuple(0.5 for _ in concepts) if multi else ())
    found = score(np.array(probabilities, np.float32), vocabulary, Policy(), NOW)
    kept = [one for one in found.scores if one.predicted]
    discarded = [one for one in found.scores if not one.predicted]

    assert sorted(entry.concept for entry in (*kept, *discarded)) == sorted(concepts)
    assert [entry.score for entry in found.scores] == sorted(probabilities, reverse=True)
    assert 0.0 <= found.margin <= 1.0


def test_the_configuration_names_both_outputs_of_a_classifier() -> None:
    text = model_configuration("m", 3, 4, gpu=False, instance_count=2)
    assert 'name: "probabilities" data_type: TYPE_FP32 dims: [ 3 ]' in text
    assert 'name: "embedding" data_type: TYPE_FP32 dims: [ 4 ]' in text
    assert "count: 2 kind: KIND_CPU" in text


def test_the_configuration_of_a_model_that_only_embeds_names_no_probabilities() -> None:
    text = model_configuration("m", 0, 4, gpu=True, instance_count=3)
    assert ("probabilities" in text, "count: 3 kind: KIND_GPU" in text) == (False, True)


def test_equal_models_have_the_same_name() -> None:
    assert whole_name("a" * 64) == whole_name("a" * 64) != whole_name("b" * 64)
