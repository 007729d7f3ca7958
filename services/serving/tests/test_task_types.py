"""From probabilities to predictions: tables for policies, properties for all models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.errors import InvalidArgument
from vesta_common.media.model_input import SQUARE, UNREAD, InputFormat
from vesta_contracts.common.v1 import Prediction, TaskType
from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_contracts.training.v1 import ModelOutput, ModelVersion
from vesta_serving.task_types import TASK_TYPES, Policy, ServingTask, Vocabulary, task_type_of
from vesta_serving.triton.model import TritonModel
from vesta_serving.triton.repository import backbone_name, whole_name

CONCEPTS = ("red", "green", "blue")
POLICY = Policy(score_certain=0.8, margin_certain=0.2, acceptance=None)
SINGLE, MULTI = Vocabulary("v", CONCEPTS), Vocabulary("v", CONCEPTS, (0.5, 0.3, 0.7))


def task_of(vocabulary: Vocabulary) -> ServingTask:
    if not vocabulary.concepts:
        return TASK_TYPES[TaskType.TASK_TYPE_EMBEDDING]
    kind = TaskType.TASK_TYPE_MULTI_LABEL if vocabulary.thresholds else TaskType.TASK_TYPE_CLASSIFICATION
    return TASK_TYPES[kind]


def score(probabilities: list[float], vocabulary: Vocabulary, policy: Policy = POLICY) -> Prediction:
    output = np.array(probabilities, np.float32)
    return task_of(vocabulary).prediction(
        dict.fromkeys(task_of(vocabulary).outputs, output), vocabulary, policy, UNREAD
    )


def answered(probabilities: list[float], vocabulary: Vocabulary) -> tuple[list[str], list[str], bool, float]:
    found = score(probabilities, vocabulary)
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
    found = score([0.8, 0.4, 0.6], MULTI, policy)

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
        task_of(vocabulary).check_thresholds(thresholds, vocabulary)
    assert refused.value.reason == reason


def test_a_single_label_model_has_no_thresholds() -> None:
    task_of(SINGLE).check_thresholds({}, SINGLE)
    found = score([0.9, 0.05, 0.05], SINGLE)
    assert not any(one.HasField("threshold") for one in found.scores)


def test_a_model_that_only_embeds_has_no_certain_prediction() -> None:
    assert answered([], Vocabulary("v", ())) == ([], [], True, 0.0)


def test_the_margin_of_a_model_with_one_concept_is_its_score() -> None:
    assert answered([0.9], Vocabulary("v", ("van",))) == (["van"], [], False, 0.9)


def test_a_policy_keeps_explicit_zeros_and_uses_defaults_otherwise() -> None:
    assert Policy.of(UncertaintyPolicy(score_certain=0.0)) == Policy(score_certain=0.0, acceptance=None)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), st.booleans())
def test_every_concept_is_returned_once_best_first(probabilities: list[float], multi: bool) -> None:
    concepts = tuple(f"c{index}" for index in range(len(probabilities)))
    vocabulary = Vocabulary("v", concepts, tuple(0.5 for _ in concepts) if multi else ())
    found = score(probabilities, vocabulary)
    kept = [one for one in found.scores if one.predicted]
    discarded = [one for one in found.scores if not one.predicted]

    assert sorted(entry.concept for entry in (*kept, *discarded)) == sorted(concepts)
    assert [entry.score for entry in found.scores] == sorted(probabilities, reverse=True)
    assert 0.0 <= found.margin <= 1.0


def an_output(name: str, *dimensions: int) -> ModelOutput:
    return ModelOutput(name=name, dimensions=dimensions)


def test_the_configuration_states_the_input_and_the_outputs() -> None:
    outputs = (an_output("objects", 0, 6), an_output("embedding", 4), an_output("segmentation", 320, 416))
    text = TritonModel("m", InputFormat(320, 416), outputs).configuration(gpu=False, instance_count=2)
    assert 'name: "pixels" data_type: TYPE_UINT8 dims: [ 320, 416, 3 ]' in text
    assert 'name: "objects" data_type: TYPE_FP32 dims: [ -1, 6 ]' in text
    assert 'name: "embedding" data_type: TYPE_FP32 dims: [ 4 ]' in text
    assert 'name: "segmentation" data_type: TYPE_UINT8 dims: [ 320, 416 ]' in text
    assert "count: 2 kind: KIND_CPU" in text


def test_the_configuration_states_the_kind_of_instances() -> None:
    text = TritonModel("m", SQUARE, (an_output("embedding", 4),)).configuration(gpu=True, instance_count=3)
    assert "count: 3 kind: KIND_GPU" in text


def test_equal_backbones_with_inputs_of_different_sizes_have_different_names() -> None:
    digest = "a" * 64
    assert backbone_name(digest) == backbone_name(digest, SQUARE) == f"backbone-{digest[:32]}"
    assert backbone_name(digest, InputFormat(320, 256)) != backbone_name(digest, InputFormat(256, 320))


def test_a_model_of_a_task_type_without_module_is_rejected() -> None:
    with pytest.raises(InvalidArgument, match="m/versions/1 is for keypoints") as refused:
        task_type_of(ModelVersion(name="m/versions/1", task_type=TaskType.TASK_TYPE_KEYPOINTS))
    assert refused.value.reason == "TASK_TYPE_UNSUPPORTED"


def test_equal_models_have_the_same_name() -> None:
    assert whole_name("a" * 64) == whole_name("a" * 64) != whole_name("b" * 64)
