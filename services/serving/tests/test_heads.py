"""The head of a model: its results, and models without one."""

import io

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from serving_builders import DIMENSION, an_onnx, an_onnx_with_a_head
from vesta_serving.predictions.heads import cut_head


def test_a_head_answers_as_the_whole_model() -> None:
    whole = an_onnx_with_a_head()
    pixels = np.random.default_rng(1).integers(0, 256, (5, 256, 256, 3), dtype=np.uint8) // np.arange(
        1, 4, dtype=np.uint8
    )
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    probabilities, embeddings = session.run(["probabilities", "embedding"], {"pixels": pixels})
    head = cut_head(whole)
    assert head is not None
    found = head.probabilities(embeddings)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, probabilities, atol=1e-6)


def test_a_model_whose_probabilities_follow_from_more_than_the_embedding_has_none() -> None:
    assert cut_head(an_onnx()) is None


def test_a_model_that_only_embeds_has_none() -> None:
    model = onnx.load(io.BytesIO(an_onnx_with_a_head()))
    del model.graph.node[-2:], model.graph.output[0]
    assert cut_head(model.SerializeToString()) is None


@pytest.mark.parametrize("kind", ["Softmax", "Sigmoid"])
def test_both_kinds_of_head_are_known(kind: str) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["pixels"], ["embedding"]),
            helper.make_node(kind, ["embedding"], ["probabilities"]),
        ],
        "bare",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", DIMENSION])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", DIMENSION])],
    )
    head = cut_head(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())
    assert head is not None
    found = head.probabilities(np.zeros((1, DIMENSION), np.float32))
    np.testing.assert_allclose(found, 1 / DIMENSION if kind == "Softmax" else 0.5)
