"""Builds the ONNX graphs of detectors with an imported network: its maps, its new class head on cached maps, and the whole model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vesta_training.example import Array
from vesta_training.features.onnx_graph import PIXELS, STRIDES, Writer, add_embedding, add_images, add_maps
from vesta_training.models.detector_graph import (
    CANDIDATE_BOXES,
    CANDIDATE_SCORES,
    Selection,
    add_objects,
)
from vesta_training.models.graph_layers import Calibration, add_calibration
from vesta_training.pretrained.features_graph import PREFIX, features_graph
from vesta_training.pretrained.network import BOX_VALUES, Network, load_graph, read_network


@dataclass(frozen=True, slots=True)
class ImportedNetwork:
    """A network as a part of our graphs.

    Attributes:
        part: see `features_graph`.
        known: the weights `(K, F)` and the biases `(K,)` by which it predicts its classes, by stride.
        reverses_colours: whether its input has the colour order BGR. The pixels of our graphs have RGB.
    """

    network: Network
    part: onnx.ModelProto
    known: tuple[tuple[Array, Array], ...]
    reverses_colours: bool


def load_network(path: Path, *, reverses_colours: bool) -> ImportedNetwork:
    """Loads the ONNX file of a detector that was inspected at its import.

    Raises:
        InvalidArgument: DETECTOR_*, the file is not a supported detector.
    """
    model = load_graph(path.read_bytes())
    network = read_network(model)
    return ImportedNetwork(network, features_graph(model, network), _known_classes(model, network), reverses_colours)


def imported_maps_graph(imported: ImportedNetwork, *, exact: bool = False) -> onnx.ModelProto:
    """Returns the graph `pixels` uint8 `(N, H, W, 3)` → `stride8`, `stride16`, `stride32` float16 `(N, F + 5, S/stride, S/stride)`.

    They contain features, box and objectness of each cell.

    Args:
        exact: whether the outputs are float32.
    """
    writer, network = Writer(), imported.network
    kind = TensorProto.FLOAT if exact else TensorProto.FLOAT16
    outputs = []
    for level, flow in zip(network.levels, _add_network(writer, imported), strict=True):
        writer.node("Cast", [flow], output=f"stride{level.stride}", to=kind)
        side, channels = network.side_px // level.stride, level.feature_count + BOX_VALUES + 1
        shape: list[str | int | None] = ["images", channels, side, side]
        outputs.append(helper.make_tensor_value_info(f"stride{level.stride}", kind, shape))
    return writer.model(outputs)


def imported_head_graph(
    head: Any, shapes: Sequence[Sequence[int]], calibration: Calibration, selection: Selection
) -> onnx.ModelProto:
    """Returns the graph `stride8`, `stride16`, `stride32` float16 → `objects` `(N, K, 6)`, as shares of the sides of the input.

    Args:
        head: an `ImportedHead`.
        shapes: of the maps of an image, by stride.
    """
    writer = Writer()
    names = [f"stride{stride}" for stride in STRIDES]
    maps = [writer.node("Cast", [name], to=TensorProto.FLOAT) for name in names]
    sides = writer.constant("sides", np.ones(4, dtype=np.float32))
    outputs = _add_head(writer, head, maps, calibration, selection, sides, with_candidates=False)
    model = writer.model(outputs)
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["images", *shape])
        for name, shape in zip(names, shapes, strict=True)
    )
    return model


def imported_detector_graph(
    imported: ImportedNetwork,
    head: Any,
    calibration: Calibration,
    selection: Selection,
    backbone: Any,
    *,
    embedding_side_px: int,
    embedding_dimension: int,
    with_candidates: bool = False,
) -> onnx.ModelProto:
    """Returns the graph `pixels` uint8 `(N, H, W, 3)` → `objects` `(N, K, 6)` in pixels of the input, and `embedding` `(N, D)`.

    The embedding has a network of its own, which takes 10 ms of 30, because the features of a detector describe a whole image less well:
    of 500 photographs of clothing, the nearest one has the same class in 44 % by the mean features of YOLOX-Nano, and in 70 % by this
    embedding.

    Args:
        backbone: the network of the embedding.
        with_candidates: adds the outputs `candidate_boxes` `(N, A, 4)`, as shares of the input, and `candidate_scores` `(N, A, C)`.
    """
    writer = Writer()
    maps = _add_network(writer, imported)
    shape = writer.node("Shape", [PIXELS])
    sides = writer.node("Gather", [shape, writer.constant("width_height", np.array([2, 1, 2, 1], dtype=np.int64))])
    sides = writer.node("Cast", [sides], to=TensorProto.FLOAT)
    outputs = _add_head(writer, head, maps, calibration, selection, sides, with_candidates=with_candidates)
    add_embedding(writer, backbone, add_maps(writer, backbone, add_images(writer, embedding_side_px)))
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["images", embedding_dimension])
    return writer.model([outputs[0], embedding, *outputs[1:]])


def _known_classes(model: onnx.ModelProto, network: Network) -> tuple[tuple[Array, Array], ...]:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute
    }
    producers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for level in network.levels:
        inputs = producers[level.classes].input
        weights = numpy_helper.to_array(constants[inputs[1]]).reshape(network.class_count, level.feature_count)
        biases = numpy_helper.to_array(constants[inputs[2]]) if len(inputs) > 2 else np.zeros(network.class_count)
        found.append((weights.astype(np.float32), biases.astype(np.float32)))
    return tuple(found)


def _add_network(writer: Writer, imported: ImportedNetwork) -> list[str]:
    """Adds a network. Returns the maps of each stride: features, box and objectness."""
    network, part = imported.network, imported.part
    images = writer.node("Cast", [PIXELS], to=TensorProto.FLOAT)
    images = writer.node("Transpose", [images], perm=[0, 3, 1, 2])
    if imported.reverses_colours:
        order = writer.constant("reversed_colours", np.array([2, 1, 0], dtype=np.int64))
        images = writer.node("Gather", [images, order], axis=1)
    size = writer.constant(f"size{network.side_px}", np.array([network.side_px] * 2, dtype=np.int64))
    writer.node(
        "Resize",
        [images, "", "", size],
        output=PREFIX + network.input,
        mode="linear",
        coordinate_transformation_mode="half_pixel",
        axes=[2, 3],
    )
    writer.nodes.extend(part.graph.node)
    writer.constants.update({tensor.name: tensor for tensor in part.graph.initializer})
    return [
        writer.node("Concat", [PREFIX + name for name in (level.features, level.box, level.objectness)], axis=1)
        for level in network.levels
    ]


def _add_head(
    writer: Writer,
    head: Any,
    maps: Sequence[str],
    calibration: Calibration,
    selection: Selection,
    sides: str,
    *,
    with_candidates: bool,
) -> list[onnx.ValueInfoProto]:
    """Adds a class head and the selection of objects. Returns the outputs."""
    logits, boxes = [], []
    for level, one in enumerate(maps):
        count = head.hidden[level].weight.shape[1] - 1
        box_end = count + BOX_VALUES
        features, box, objectness = (
            _channels(writer, one, *bounds) for bounds in ((0, count), (count, box_end), (box_end, box_end + 1))
        )
        own = writer.node("Concat", [features, objectness], axis=1)
        hidden = writer.convolution(head.hidden[level], None, own, relu6=True)
        classes = writer.convolution(head.classes[level], None, hidden, relu6=False)
        weights, biases = head.linear(level)
        tensors = [
            writer.constant(f"linear{level}.weight", weights.reshape(*weights.shape, 1, 1)),
            writer.constant(f"linear{level}.bias", biases),
        ]
        logits.append(_cells(writer, writer.node("Add", [classes, writer.node("Conv", [own, *tensors])]), len(biases)))
        boxes.append(_cells(writer, box, BOX_VALUES))
    candidate_boxes = _decoded(writer, writer.node("Concat", boxes, axis=1), head)
    shares = writer.node("Sigmoid", [writer.node("Concat", logits, axis=1)])
    scores = add_calibration(writer, shares, calibration, CANDIDATE_SCORES)
    cell_count, concept_count = len(head.corners), head.concept_count
    outputs = [add_objects(writer, candidate_boxes, scores, sides, selection, cell_count, concept_count)]
    if with_candidates:
        outputs += [
            helper.make_tensor_value_info(CANDIDATE_BOXES, TensorProto.FLOAT, ["images", cell_count, 4]),
            helper.make_tensor_value_info(CANDIDATE_SCORES, TensorProto.FLOAT, ["images", cell_count, concept_count]),
        ]
    return outputs


def _decoded(writer: Writer, boxes: str, head: Any) -> str:
    """Adds the decoding of boxes; see `ImportedHead`."""
    corners, strides = head.corners.cpu().numpy(), head.strides.cpu().numpy()
    centres = writer.node("Add", [_values(writer, boxes, 0, 2), writer.constant("cell.corners", corners)])
    centres = writer.node("Mul", [centres, writer.constant("cell.strides", strides)])
    limit = writer.constant("log_side_max", np.array(head.log_side_max, dtype=np.float32))
    sides = writer.node("Exp", [writer.node("Min", [_values(writer, boxes, 2, 4), limit])])
    halves = writer.node("Mul", [sides, writer.constant("cell.halves", strides / 2)])
    ends = [writer.node("Sub", [centres, halves]), writer.node("Add", [centres, halves])]
    zero, one = (writer.constant(name, np.array(value, dtype=np.float32)) for name, value in (("zero", 0), ("one", 1)))
    return writer.node("Clip", [writer.node("Concat", ends, axis=2), zero, one], output=CANDIDATE_BOXES)


def _channels(writer: Writer, flow: str, start: int, end: int) -> str:
    return _sliced(writer, flow, start, end, 1)


def _values(writer: Writer, values: str, start: int, end: int) -> str:
    return _sliced(writer, values, start, end, 2)


def _sliced(writer: Writer, values: str, start: int, end: int, axis: int) -> str:
    bounds = [writer.constant(f"bound{value}", np.array([value], dtype=np.int64)) for value in (start, end)]
    return writer.node("Slice", [values, *bounds, writer.constant(f"axis_{axis}", np.array([axis], dtype=np.int64))])


def _cells(writer: Writer, flow: str, values: int) -> str:
    """`(N, values, H, W)` → `(N, H · W, values)`."""
    rows = writer.node("Transpose", [flow], perm=[0, 2, 3, 1])
    shape = writer.constant(f"cells{values}", np.array([0, -1, values], dtype=np.int64))
    return writer.node("Reshape", [rows, shape])
