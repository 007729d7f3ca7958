"""The network of an imported detector in torch, so that it can be trained, and its weights written back to its ONNX graph."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from vesta_training.models.imported_graph import ImportedNetwork
from vesta_training.pretrained.features_graph import PREFIX

functional = nn.functional


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a graph: its operator, its attributes, and the names of its inputs and of its output."""

    operator: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    output: str


def untrainable_operators(imported: ImportedNetwork) -> list[str]:
    """Returns the operators of a network that have no counterpart in torch here; empty if it can be trained."""
    found = {node.op_type for node in _needed(imported)} - set(_OPERATORS) - {"Constant"}
    return sorted(found | {"Resize" for node in _needed(imported) if node.op_type == "Resize" and not _doubles(node)})


class TrainableNetwork(nn.Module):
    """Computes what `imported_graph.imported_maps_graph` computes, from letterboxed images of the size of its input.

    The weights and biases of its convolutions are parameters. Other tensors are constant.

    Args:
        imported: without `untrainable_operators`.
    """

    def __init__(self, imported: ImportedNetwork) -> None:
        super().__init__()
        nodes = _needed(imported)
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in imported.part.graph.initializer}
        values |= {
            node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in nodes if node.op_type == "Constant"
        }
        self._nodes = tuple(_node(node) for node in nodes if node.op_type != "Constant")
        learned = {name for node in self._nodes if node.operator == "Conv" for name in node.inputs[1:]}
        # Names of modules must not contain dots.
        self._learned = {name: f"tensor{number}" for number, name in enumerate(sorted(learned))}
        self.tensors = nn.ParameterDict(
            {key: nn.Parameter(torch.from_numpy(values[name].copy())) for name, key in self._learned.items()}
        )
        used = {name for node in self._nodes for name in node.inputs} - learned
        self._constants = {name: torch.from_numpy(values[name].copy()) for name in used if name in values}
        self._entry = PREFIX + imported.network.input
        self._levels = tuple(
            tuple(PREFIX + name for name in (level.features, level.box, level.objectness))
            for level in imported.network.levels
        )
        self._reverses_colours = imported.reverses_colours

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """`(N, 3, S, S)` RGB in [0, 255] → `(N, F + 5, S/stride, S/stride)` by stride: features, box and objectness."""
        flow = {self._entry: images.flip(1) if self._reverses_colours else images}
        flow |= {name: self.tensors[key] for name, key in self._learned.items()}
        for node in self._nodes:
            inputs = [flow[name] if name in flow else self._constant(name, images) for name in node.inputs if name]
            flow[node.output] = _OPERATORS[node.operator](node.attributes, inputs)
        return [torch.cat([flow[name] for name in names], dim=1) for names in self._levels]

    def written_to(self, imported: ImportedNetwork) -> ImportedNetwork:
        """Returns the network with the weights of this one."""
        part = onnx.ModelProto()
        part.CopyFrom(imported.part)
        for tensor in part.graph.initializer:
            if key := self._learned.get(tensor.name):
                value = self.tensors[key].detach().cpu().numpy()
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
        return replace(imported, part=part)

    def _constant(self, name: str, images: torch.Tensor) -> torch.Tensor:
        value = self._constants[name]
        return value.to(images.device) if value.is_floating_point() else value


def _needed(imported: ImportedNetwork) -> list[onnx.NodeProto]:
    """Returns the nodes from which features, boxes and objectness are computed, in order."""
    graph = imported.part.graph
    producers = {name: node for node in graph.node for name in node.output}
    waiting = [
        PREFIX + name for level in imported.network.levels for name in (level.features, level.box, level.objectness)
    ]
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in producers and name not in needed:
            needed.add(name)
            waiting.extend(producers[name].input)
    return [node for node in graph.node if node.output[0] in needed]


def _node(node: onnx.NodeProto) -> Node:
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    return Node(node.op_type, attributes, tuple(node.input), node.output[0])


def _doubles(node: onnx.NodeProto) -> bool:
    """Whether a Resize repeats cells."""
    attributes = _node(node).attributes
    return (attributes.get("mode"), attributes.get("coordinate_transformation_mode")) == (b"nearest", b"asymmetric")


def _convolution(attributes: Mapping[str, Any], inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    flow, weights, *biases = inputs
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    is_symmetric = (top, left) == (bottom, right)
    answer: torch.Tensor = functional.conv2d(
        flow if is_symmetric else functional.pad(flow, (left, right, top, bottom)),
        weights,
        biases[0] if biases else None,
        stride=tuple(attributes.get("strides", (1, 1))),
        padding=(top, left) if is_symmetric else (0, 0),
        dilation=tuple(attributes.get("dilations", (1, 1))),
        groups=attributes.get("group", 1),
    )
    return answer


def _maximum(attributes: Mapping[str, Any], inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    padded = functional.pad(inputs[0], (left, right, top, bottom), value=float("-inf"))
    return functional.max_pool2d(padded, tuple(attributes["kernel_shape"]), tuple(attributes.get("strides", (1, 1))))


def _slice(_: Mapping[str, Any], inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    flow, starts, ends, *rest = inputs
    axes = rest[0].tolist() if rest else range(len(starts))
    steps = rest[1].tolist() if len(rest) > 1 else [1] * len(starts)
    parts = [slice(None)] * flow.dim()
    for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps, strict=True):
        parts[axis] = slice(start, end, step)
    return flow[tuple(parts)]


def _resize(_: Mapping[str, Any], inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    flow, target = inputs[0], inputs[-1] if len(inputs[-1]) else inputs[1]
    if target.is_floating_point():
        return functional.interpolate(flow, scale_factor=tuple(target[2:].tolist()), mode="nearest")
    return functional.interpolate(flow, size=tuple(target[2:].tolist()), mode="nearest")


_OPERATORS: dict[str, Callable[[Mapping[str, Any], Sequence[torch.Tensor]], torch.Tensor]] = {
    "Add": lambda _, inputs: inputs[0] + inputs[1],
    "Concat": lambda attributes, inputs: torch.cat(list(inputs), dim=attributes["axis"]),
    "Conv": _convolution,
    "HardSwish": lambda _, inputs: functional.hardswish(inputs[0]),
    "Identity": lambda _, inputs: inputs[0],
    "LeakyRelu": lambda attributes, inputs: functional.leaky_relu(inputs[0], attributes.get("alpha", 0.01)),
    "MaxPool": _maximum,
    "Mul": lambda _, inputs: inputs[0] * inputs[1],
    "Relu": lambda _, inputs: functional.relu(inputs[0]),
    "Resize": _resize,
    "Sigmoid": lambda _, inputs: inputs[0].sigmoid(),
    "Slice": _slice,
}
