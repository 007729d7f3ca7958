"""Divides model files: Triton runs the backbone, from pixels to embeddings, and this service the head, from embeddings to probabilities.

Models with equal backbones, such as all models of a recipe with a frozen backbone, share one Triton model with its memory and its batches.
A head has a few kilobytes. A dataset whose items have embeddings is scored by the head alone, without reading the images again.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from vesta_common.media.model_signatures import EMBEDDING, PROBABILITIES

PIXELS = "pixels"

Compute = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class ModelParts:
    """The parts of a model file.

    Attributes:
        triton_file: the ONNX file for Triton: the backbone, or the complete model if it cannot be divided.
        head: ONNX file of the head; None for a model that only computes embeddings, and for one that cannot be divided.
        is_whole: whether `triton_file` is the complete model.
    """

    triton_file: bytes
    head: bytes | None
    is_whole: bool

    @property
    def digest(self) -> str:
        """The SHA-256 of `triton_file`. Models with equal backbones have the same."""
        return hashlib.sha256(self.triton_file).hexdigest()


class Head:
    """A head, run in numpy. Thread-safe.

    Args:
        head_file: an ONNX file with the input `embedding` `(N, D)` and the output `probabilities` `(N, C)`, both float32.
    """

    def __init__(self, head_file: bytes) -> None:
        model = onnx.load_model_from_string(head_file)
        self._compute = _find_linear(model) or _general(model)

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns `(N, C)` probabilities for `(N, D)` embeddings."""
        return np.asarray(self._compute(embeddings), np.float32)


def _general(model: Any) -> Compute:
    evaluator = ReferenceEvaluator(model)

    def compute(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        (probabilities,) = evaluator.run([PROBABILITIES], {EMBEDDING: embeddings})
        return np.asarray(probabilities)

    return compute


def _find_linear(model: Any) -> Compute | None:
    """Returns the computation of a linear head, as training writes it, in a tenth of the evaluator's time; None for another graph."""
    constants = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    nodes = list(model.graph.node)
    if [node.op_type for node in nodes] not in (["Gemm", "Softmax"], ["Gemm", "Sigmoid"]):
        return None
    gemm, activation = nodes
    axes = [attribute.i for attribute in activation.attribute]
    names = list(gemm.input)
    if gemm.attribute or axes not in ([], [1], [-1]) or names[:1] != [EMBEDDING] or len(names) != 3:
        return None
    if not constants.keys() >= {*names[1:]}:
        return None
    weights, bias = (constants[name] for name in names[1:])
    activate = _softmax if activation.op_type == "Softmax" else _sigmoid
    return lambda embeddings: activate(embeddings @ weights + bias)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))  # 1 / (1 + exp(-x)) without overflow


def divide(onnx_file: bytes) -> ModelParts:
    """Divides a model file at its embedding.

    A file cannot be divided if its probabilities depend on more than the embedding, or if it has other outputs. A file that is not ONNX
    is returned as it is; Triton rejects it with the reason.
    """
    whole = ModelParts(onnx_file, None, is_whole=True)
    try:
        model = onnx.load_model_from_string(onnx_file)
    except DecodeError:
        return whole
    outputs = {output.name for output in model.graph.output}
    backbone = _part(model, {PIXELS}, EMBEDDING) if outputs <= {EMBEDDING, PROBABILITIES} else None
    if backbone is None:
        return whole
    if PROBABILITIES not in outputs:
        return ModelParts(backbone, None, is_whole=False)
    head = _part(model, {EMBEDDING}, PROBABILITIES)
    return whole if head is None else ModelParts(backbone, head, is_whole=False)


def _part(model: Any, inputs: set[str], output: str) -> bytes | None:
    """Returns the part of a graph that computes an output, as a file of its own; None if it depends on more than these inputs.

    Equal parts of different models are equal files: metadata is left out.
    """
    graph = model.graph
    used = _ancestors(graph, inputs, output)
    if used is None:
        return None
    declared = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
    part = helper.make_graph(
        [node for node in graph.node if used.intersection(node.output)],
        output,
        [_declaration(declared, name) for name in sorted(inputs)],
        [_declaration(declared, output)],
        [constant for constant in graph.initializer if constant.name in used],
    )
    extracted = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(extracted.SerializeToString(deterministic=True))


def _ancestors(graph: Any, inputs: Iterable[str], output: str) -> set[str] | None:
    """Returns the names of all values that an output is computed from, except the inputs; None if it depends on more than these inputs."""
    sources = {output: list(node.input) for node in graph.node for output in node.output}
    sources |= {constant.name: [] for constant in graph.initializer}
    used: set[str] = set()
    remaining = [output]
    while remaining:
        name = remaining.pop()
        if name in used or name in inputs or not name:
            continue
        if name not in sources:
            return None  # another input of the model, or a name that is not defined in the file
        used.add(name)
        remaining.extend(sources[name])
    return used


def _declaration(declared: dict[str, Any], name: str) -> Any:
    return declared[name] if name in declared else helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
