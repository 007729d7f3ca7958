"""Tiny ONNX models for the tests, and one in Triton."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from vesta_common.media.model_input import SQUARE
from vesta_contracts.training.v1 import ModelOutput
from vesta_serving.triton.model import TritonModel

CONCEPTS = ("red", "green", "blue")
DIMENSION = 4


def an_onnx(scale: float = 8.0, *, not_a_number: bool = False, concept_count: int = len(CONCEPTS)) -> bytes:
    """From uint8 `(N, 256, 256, 3)` to `probabilities` `(N, C)`, softmax of the mean colour, and `embedding` `(N, 4)` of unit length."""
    nodes = [
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("MatMul", ["probabilities", "spread"], ["wide"]),
        helper.make_node("LpNormalization", ["wide"], ["embedding"], axis=1, p=2),
    ]
    constants = {
        "weights": np.eye(3, concept_count, dtype=np.float32) * scale / 255,
        "spread": np.ones((concept_count, DIMENSION), np.float32) * (np.nan if not_a_number else 1.0),
    }
    return _onnx_of_colour(nodes, constants, concept_count)


def an_onnx_with_a_head(scale: float = 8.0, *, shift: float = 0.1) -> bytes:
    """Like `an_onnx`, but the probabilities depend on the embedding alone, as in models from training.

    Args:
        scale: of the head.
        shift: of the backbone.
    """
    nodes = [
        helper.make_node("Gemm", ["colour", "spread", "spread_bias"], ["wide"]),
        helper.make_node("LpNormalization", ["wide"], ["embedding"], axis=1, p=2),
        helper.make_node("Gemm", ["embedding", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {
        "spread": np.eye(3, DIMENSION, dtype=np.float32),
        "spread_bias": np.full(DIMENSION, shift, np.float32),
        "weights": np.eye(DIMENSION, len(CONCEPTS), dtype=np.float32) * scale,
        "bias": np.array([0.3, 0.2, 0.1], np.float32),
    }
    return _onnx_of_colour(nodes, constants, len(CONCEPTS))


def an_onnx_that_only_embeds() -> bytes:
    """The backbone of `an_onnx_with_a_head`."""
    model = onnx.load_model_from_string(an_onnx_with_a_head())
    del model.graph.node[-2:], model.graph.output[0]
    return bytes(model.SerializeToString())


def an_onnx_of_several_labels(scale: float = 1.0) -> bytes:
    """Like `an_onnx`, but each colour has an independent probability: its share of full brightness, times `scale`, at most 1."""
    nodes = [
        helper.make_node("MatMul", ["colour", "weights"], ["brightness"]),
        helper.make_node("Clip", ["brightness", "zero", "one"], ["probabilities"]),
        helper.make_node("MatMul", ["colour", "spread"], ["wide"]),
        helper.make_node("LpNormalization", ["wide"], ["embedding"], axis=1, p=2),
    ]
    constants = {
        "weights": np.eye(3, dtype=np.float32) * scale / 255,
        "zero": np.array(0.0, np.float32),
        "one": np.array(1.0, np.float32),
        "spread": np.ones((3, DIMENSION), np.float32),
    }
    return _onnx_of_colour(nodes, constants, len(CONCEPTS))


def _onnx_of_colour(nodes: Sequence[Any], constants: Mapping[str, Any], concept_count: int) -> bytes:
    """A model that reduces an image to its mean `colour`, from which the nodes continue."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats", "axes"], ["colour"], keepdims=0),
            *nodes,
        ],
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 256, 256, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", concept_count]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIMENSION]),
        ],
        [
            numpy_helper.from_array(value, name)
            for name, value in {"axes": np.array([1, 2], np.int64), **constants}.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def a_detector(copies: int = 1, height_px: int = 96, width_px: int = 160, seen_share: float = 1.0) -> bytes:
    """From uint8 `(N, height, width, 3)` to `objects` `(N, 2 * copies, 6)`: the box of all red pixels as a "red" with the score of the
    reddest, and padding, repeated.

    Args:
        seen_share: the share of the columns that it sees, from the left.
    """
    by_column, by_row, everywhere = [1, 3], [2, 3], [1, 2]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Split", ["floats"], ["r", "g", "b"], axis=3, num_outputs=3),
        helper.make_node("Less", ["g", "dark"], ["is_not_green"]),
        helper.make_node("Greater", ["r", "bright"], ["is_bright"]),
        helper.make_node("And", ["is_bright", "is_not_green"], ["is_red"]),
        helper.make_node("Cast", ["is_red"], ["all_red"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["all_red", "seen"], ["red"]),
        helper.make_node("ReduceMax", ["red", "by_column"], ["columns"], keepdims=0),
        helper.make_node("ReduceMax", ["red", "by_row"], ["rows"], keepdims=0),
        *(
            helper.make_node("ArgMax", [source], [name], axis=1, select_last_index=is_last)
            for source, name, is_last in (
                ("columns", "left", 0),
                ("rows", "top", 0),
                ("columns", "last_x", 1),
                ("rows", "last_y", 1),
            )
        ),
        helper.make_node("Concat", ["left", "top", "last_x", "last_y"], ["corners"], axis=1),
        helper.make_node("Cast", ["corners"], ["first_and_last"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["first_and_last", "half_open"], ["box"]),
        helper.make_node("Mul", ["red", "r"], ["redness"]),
        helper.make_node("ReduceMax", ["redness", "everywhere"], ["reddest"], keepdims=0),
        helper.make_node("Div", ["reddest", "full"], ["score"]),
        helper.make_node("Mul", ["score", "zero"], ["number"]),
        helper.make_node("Concat", ["box", "score", "number"], ["object"], axis=1),
        helper.make_node("Unsqueeze", ["object", "one"], ["alone"]),
        helper.make_node("Pad", ["alone", "padding"], ["padded"]),
        helper.make_node("Tile", ["padded", "copies"], ["objects"]),
    ]
    constants = {
        "seen": (np.arange(width_px) < seen_share * width_px).astype(np.float32)[None, None, :, None],
        "dark": np.float32(60),
        "bright": np.float32(90),
        "full": np.float32(255),
        "zero": np.float32(0),
        "half_open": np.array([0, 0, 1, 1], np.float32),
        "by_column": np.array(by_column),
        "by_row": np.array(by_row),
        "everywhere": np.array(everywhere),
        "one": np.array([1]),
        "copies": np.array([1, copies, 1]),
        "padding": np.array([0, 0, 0, 0, 1, 0]),
    }
    graph = helper.make_graph(
        nodes,
        "red box",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", height_px, width_px, 3])],
        [helper.make_tensor_value_info("objects", TensorProto.FLOAT, ["N", 2 * copies, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def a_segmenter(copies: int = 1) -> bytes:
    """`a_detector` with `masks` `(N, 2 * copies, 8, 8)`: the left half of each box."""
    model = onnx.load_model_from_string(a_detector(copies))
    constants = {
        "half": np.tile((np.arange(8) < 4).astype(np.float32), (1, 1, 8, 1)),
        "object_axis": np.array([2]),
        "last_axis": np.array([3]),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["objects", "object_axis"], ["highest"], keepdims=1),
            helper.make_node("Sign", ["highest"], ["is_object"]),
            helper.make_node("Unsqueeze", ["is_object", "last_axis"], ["is_object_4d"]),
            helper.make_node("Mul", ["is_object_4d", "half"], ["masks"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("masks", TensorProto.FLOAT, ["N", 2 * copies, 8, 8]))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def a_map_model(height_px: int = 96, width_px: int = 160) -> bytes:
    """From uint8 `(N, height, width, 3)` to `segmentation` `(N, height, width)` with the red pixels as the first of two concepts,
    `presence` `(N, 2)` with the reddest as the score of the first, and `overlap` `(N, 2)` of 0.9.
    """
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Split", ["floats"], ["r", "g", "b"], axis=3, num_outputs=3),
        helper.make_node("Less", ["g", "dark"], ["is_not_green"]),
        helper.make_node("Greater", ["r", "bright"], ["is_bright"]),
        helper.make_node("And", ["is_bright", "is_not_green"], ["is_red"]),
        helper.make_node("Squeeze", ["is_red", "last"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["segmentation"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["flat"], ["red"], to=TensorProto.FLOAT),
        helper.make_node("Squeeze", ["r", "last"], ["bright_red"]),
        helper.make_node("Mul", ["red", "bright_red"], ["redness"]),
        helper.make_node("ReduceMax", ["redness", "everywhere"], ["reddest"], keepdims=0),
        helper.make_node("Div", ["reddest", "full"], ["share"]),
        helper.make_node("Unsqueeze", ["share", "one"], ["column"]),
        helper.make_node("Mul", ["column", "first"], ["presence"]),
        helper.make_node("Mul", ["presence", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "expected"], ["overlap"]),
    ]
    constants = {
        "dark": np.float32(60),
        "bright": np.float32(90),
        "full": np.float32(255),
        "zero": np.float32(0),
        "expected": np.float32(0.9),
        "first": np.array([1, 0], np.float32),
        "everywhere": np.array([1, 2]),
        "last": np.array([3]),
        "one": np.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "red pixels",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", height_px, width_px, 3])],
        [
            helper.make_tensor_value_info("segmentation", TensorProto.UINT8, ["N", height_px, width_px]),
            helper.make_tensor_value_info("presence", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("overlap", TensorProto.FLOAT, ["N", 2]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def a_triton_model(name: str) -> TritonModel:
    """The models of these builders in Triton, served whole."""
    outputs = (
        ModelOutput(name="probabilities", dimensions=[len(CONCEPTS)]),
        ModelOutput(name="embedding", dimensions=[DIMENSION]),
    )
    return TritonModel(name, SQUARE, outputs)
