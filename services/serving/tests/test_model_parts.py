"""The division of model files into backbone and head."""

import io

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from serving_models import DIMENSION, an_onnx, an_onnx_with_a_head
from vesta_serving.model_parts import Head, divide


def run(model: bytes, outputs: list[str], pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(outputs, {"pixels": pixels})
    return found


def without_head(model_file: bytes) -> bytes:
    model = onnx.load(io.BytesIO(model_file))
    del model.graph.node[-2:], model.graph.output[0]
    model.graph.initializer.pop()
    helper.set_model_props(model, {"vesta.task": "embedding"})
    return bytes(model.SerializeToString())


def test_backbone_and_head_compute_the_outputs_of_the_model() -> None:
    whole = an_onnx_with_a_head()
    pixels = np.random.default_rng(1).integers(0, 256, (5, 256, 256, 3), dtype=np.uint8) // np.arange(
        1, 4, dtype=np.uint8
    )
    probabilities, embeddings = run(whole, ["probabilities", "embedding"], pixels)
    parts = divide(whole)
    assert parts.head is not None
    assert not parts.is_whole
    (found_embeddings,) = run(parts.triton_file, ["embedding"], pixels)
    np.testing.assert_array_equal(found_embeddings, embeddings)
    found = Head(parts.head).probabilities(found_embeddings)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, probabilities, atol=1e-6)


def test_models_that_differ_in_the_head_have_the_same_backbone() -> None:
    first, second, other = (
        divide(model) for model in (an_onnx_with_a_head(8), an_onnx_with_a_head(9), an_onnx_with_a_head(8, shift=0.2))
    )
    assert first.digest == second.digest != other.digest
    assert first.head != second.head
    assert first.head == other.head


def test_a_model_without_head_has_the_backbone_of_the_models_with_one() -> None:
    parts = divide(without_head(an_onnx_with_a_head()))
    assert (parts.head, parts.is_whole) == (None, False)
    assert parts.digest == divide(an_onnx_with_a_head()).digest


@pytest.mark.parametrize("model_file", [an_onnx(), b"not ONNX"], ids=["probabilities from pixels", "not ONNX"])
def test_a_file_that_cannot_be_divided_stays_whole(model_file: bytes) -> None:
    parts = divide(model_file)
    assert (parts.triton_file, parts.head, parts.is_whole) == (model_file, None, True)


def a_head(
    activation: str, weights: NDArray[np.float32], bias: NDArray[np.float32], **attributes: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["embedding", "weights", "bias"], ["logits"], **attributes),
            helper.make_node(activation, ["logits"], ["probabilities"]),
        ],
        "head",
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIMENSION])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(bias)])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize("activation", ["Softmax", "Sigmoid"])
@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["usual logits", "logits beyond the range of exp"])
@pytest.mark.parametrize("attributes", [{}, {"transB": 1}], ids=["as training writes it", "of another graph"])
def test_heads_compute_what_the_reference_evaluator_does(
    activation: str, scale: float, attributes: dict[str, int]
) -> None:
    numbers = np.random.default_rng(1)
    weights = (scale * numbers.normal(size=(DIMENSION, 3))).astype(np.float32)
    bias = numbers.normal(size=3).astype(np.float32)
    head = a_head(activation, weights.T if attributes else weights, bias, **attributes)
    embeddings = numbers.normal(size=(5, DIMENSION)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        (expected,) = ReferenceEvaluator(head).run(None, {"embedding": embeddings})
        found = Head(head.SerializeToString()).probabilities(embeddings)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["Softmax", "Sigmoid"])
def test_both_activations_of_heads_are_supported(kind: str) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["pixels"], ["embedding"]),
            helper.make_node(kind, ["embedding"], ["probabilities"]),
        ],
        "bare",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", DIMENSION])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", DIMENSION])],
    )
    parts = divide(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())
    assert parts.head is not None
    found = Head(parts.head).probabilities(np.zeros((1, DIMENSION), np.float32))
    np.testing.assert_allclose(found, 1 / DIMENSION if kind == "Softmax" else 0.5)
