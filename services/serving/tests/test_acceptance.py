"""Which predictions are certain: the limits of a policy, the evidence of a version, and what a deployment states about both."""

from typing import Any

import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from serving_builders import PROJECT, a_picture
from serving_models import CONCEPTS, an_onnx
from serving_service import Serving
from vesta_common.media.model_input import UNREAD
from vesta_common.media.model_signatures import PROBABILITIES
from vesta_common.risk_control import HeldOut, pack
from vesta_contracts.common.v1 import Prediction, TaskType
from vesta_contracts.serving.v1 import (
    Deployment,
    ListDeploymentsRequest,
    PredictInput,
    PredictRequest,
    UncertaintyPolicy,
    UpdateDeploymentRequest,
)
from vesta_contracts.training.v1 import ModelVersion
from vesta_serving.acceptance import describe
from vesta_serving.task_types import TASK_TYPES, Policy, Vocabulary

NAME = f"{PROJECT}/models/vans/versions/3"


def a_version(
    count: int = 300, margin: float = 0.8, *, wrong: int = 0, concept: str = "red", **fields: Any
) -> ModelVersion:
    evidence = [HeldOut(margin, (concept,), place >= wrong) for place in range(count)]
    held_out = pack(evidence, CONCEPTS, drawn_at_random=fields.pop("drawn_at_random", True))
    return ModelVersion(name=NAME, concepts=CONCEPTS, held_out=held_out, **fields)


def classified(probabilities: list[float], version: ModelVersion, **policy: Any) -> Prediction:
    vocabulary = Vocabulary(NAME, CONCEPTS)
    applied = Policy.of(UncertaintyPolicy(**policy), version)
    output = np.array(probabilities, np.float32)
    return TASK_TYPES[TaskType.TASK_TYPE_CLASSIFICATION].prediction(
        {PROBABILITIES: output}, vocabulary, applied, UNREAD
    )


def test_a_large_margin_is_certain_and_a_small_one_states_the_bound() -> None:
    certain, uncertain = (classified(one, a_version()) for one in ([0.95, 0.05, 0.0], [0.6, 0.3, 0.1]))
    assert (certain.uncertain, certain.uncertain_reason) == (False, "")
    assert uncertain.uncertain_reason == (
        "the scores of red and green differ by 0.30: the margin 0.30 is below 0.79, from which an error rate of 2 % is kept"
    )


@pytest.mark.parametrize(
    ("version", "policy", "reason"),
    [
        (
            ModelVersion(name=NAME, concepts=CONCEPTS),
            {},
            "needs at least 149 held-out labels without an error for 2 %; there are 0",
        ),
        (a_version(100), {}, "there are 100"),
        (a_version(300, wrong=30), {}, "30 are wrong"),
        (a_version(300), {"error_rate_max": 0.001}, "needs at least 2995"),
        (a_version(300), {"error_rate_max": 0.0}, "can never be shown"),
        (a_version(300), {"concept_error_rates_max": {"red": 0.001}}, "held-out labels that predict 'red'"),
        (a_version(300), {"score_threshold": 0.99}, "so that no concept is predicted"),
    ],
)
def test_everything_is_uncertain_for_a_reason(version: ModelVersion, policy: dict[str, Any], reason: str) -> None:
    found = classified([0.98, 0.02, 0.0], version, **policy)
    assert found.uncertain
    assert reason in found.uncertain_reason


def test_fixed_bounds_decide_alone_where_they_are_set() -> None:
    nothing = ModelVersion(name=NAME, concepts=CONCEPTS)
    assert not classified([0.7, 0.2, 0.1], nothing, margin_certain=0.4).uncertain
    assert not classified([0.7, 0.2, 0.1], nothing, score_certain=0.6).uncertain
    assert "below 0.8" in classified([0.7, 0.2, 0.1], a_version(margin=0.1), score_certain=0.8).uncertain_reason
    assert (
        "the margin 0.50 is below 0.6"
        in classified([0.7, 0.2, 0.1], a_version(margin=0.1), margin_certain=0.6).uncertain_reason
    )


def test_other_thresholds_than_those_of_the_version_make_everything_uncertain() -> None:
    version = a_version(thresholds=[0.5, 0.5, 0.5])
    vocabulary = Vocabulary(NAME, CONCEPTS, (0.5, 0.5, 0.5))

    def said(**policy: Any) -> Prediction:
        applied = Policy.of(UncertaintyPolicy(**policy), version)
        output = np.array([0.99, 0.01, 0.0], np.float32)
        return TASK_TYPES[TaskType.TASK_TYPE_MULTI_LABEL].prediction(
            {PROBABILITIES: output}, vocabulary, applied, UNREAD
        )

    assert not said().uncertain
    assert not said(thresholds={"red": 0.5}).uncertain
    assert "another threshold of 'red'" in said(thresholds={"red": 0.6}).uncertain_reason
    assert not said(thresholds={"red": 0.6}, margin_certain=0.5).uncertain
    assert not said(score_certain=0.999).uncertain  # ignored for several labels


def test_a_deployment_states_what_is_certain() -> None:
    found = describe(UncertaintyPolicy(concept_error_rates_max={"green": 0.1, "gone": 0.1}), a_version(400))
    assert (found.held_out_count, round(found.margin_min, 2), dict(found.concept_margins_min)) == (400, 0.79, {})
    assert "with a margin of at least 0.79 are certain, of which at most 2 % are wrong" in found.message
    assert (
        "No prediction of 'green' is certain: needs at least 36 held-out labels that predict 'green'" in found.message
    )
    assert "does not have the concept 'gone'" in found.message
    assert "its user assigned" not in found.message
    assert "its user assigned" in describe(UncertaintyPolicy(), a_version(400, drawn_at_random=False)).message


def test_a_deployment_without_enough_evidence_states_how_much_is_missing() -> None:
    found = describe(UncertaintyPolicy(), a_version(80))
    assert not found.HasField("margin_min")
    assert "needs at least 149 held-out labels without an error for 2 %; there are 80" in found.message
    assert "no error rate is promised" in describe(UncertaintyPolicy(score_certain=0.5), a_version(80)).message


def test_unusable_evidence_makes_everything_uncertain() -> None:
    version = a_version()
    version.held_out.concepts.append(0)
    assert "are unusable" in classified([0.98, 0.02, 0.0], version).uncertain_reason


def test_predictions_and_the_deployment_follow_the_evidence_and_the_policy(serving: Serving) -> None:
    bare = serving.deployed(serving.registry.add(an_onnx()))
    known = serving.deployed(serving.registry.add(an_onnx(), held_out=a_version(300).held_out), name="known")

    def predicted(deployment: Deployment) -> Prediction:
        request = PredictRequest(name=deployment.name, inputs=[PredictInput(data=a_picture("red"))])
        return serving.deployments.Predict(request).predictions[0].prediction

    assert "there are 0" in bare.acceptance.message
    assert "there are 0" in predicted(bare).uncertain_reason
    assert known.acceptance.held_out_count == 300
    assert not predicted(known).uncertain

    fixed = UncertaintyPolicy(margin_certain=0.1)
    updated = serving.deployments.UpdateDeployment(
        UpdateDeploymentRequest(
            deployment=Deployment(name=bare.name, uncertainty=fixed), update_mask=FieldMask(paths=["uncertainty"])
        )
    )
    assert "no error rate is promised" in updated.acceptance.message
    assert not predicted(bare).uncertain
    listed = serving.deployments.ListDeployments(ListDeploymentsRequest(parent=PROJECT)).deployments
    assert [one.acceptance.held_out_count for one in listed] == [300, 0]
