"""Builds the ONNX graphs of a segmenter: from uint8 pixels, or from cached feature maps, to a map of concepts. Standard operators only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from vesta_common.media.model_signatures import OVERLAP, PRESENCE, SEGMENTATION

from vesta_training.features.onnx_graph import (
    EMBEDDING,
    FINE_STRIDES,
    PIXELS,
    Writer,
    add_embedding,
    add_images,
    add_maps,
)
from vesta_training.models.graph_layers import Calibration, add_block, add_calibration, add_depthwise, add_doubling

LOGITS = "logits"
AREA_MIN = 1e-3
"""Lower limit of an area in a divisor, in cells."""


@dataclass(frozen=True, slots=True)
class PixelCalibration:
    """Calibrated probabilities.

    Attributes:
        temperature: the divisor of the logits of pixels.
        presence: of the probability that the image contains each concept.
    """

    temperature: float
    presence: Calibration


def segmenter_graph(
    network: Any,
    heads: Sequence[Any],
    calibration: PixelCalibration,
    *,
    side_px: int,
    embedding_dimension: int,
    with_logits: bool = False,
) -> onnx.ModelProto:
    """Returns the graph `pixels` uint8 `(N, H, W, 3)` → `segmentation` uint8 `(N, H, W)`, `presence` and `overlap` `(N, C)`, and
    `embedding` `(N, D)`, all from the same maps. `ModelOutput` describes the outputs.

    Args:
        heads: each a fitted `SegmentationHead`; the logits are their mean.
        with_logits: adds the output `logits` `(N, C + 1, S/4, S/4)`, divided by the temperature.
    """
    writer, class_count = Writer(), heads[0].class_count
    maps = add_maps(writer, network, add_images(writer, side_px), FINE_STRIDES)
    logits = _logits(writer, heads, [flow for flow, _ in maps.values()], calibration.temperature)
    shape = writer.node("Shape", [PIXELS])
    sides = writer.node("Gather", [shape, writer.constant("height_width", np.array([1, 2], dtype=np.int64))])
    outputs = _add_map(writer, logits, sides, calibration.presence, class_count - 1, ["height", "width"])
    add_embedding(writer, network, maps)
    outputs.append(helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["images", embedding_dimension]))
    if with_logits:
        side = side_px // 4
        shape_of_logits = ["images", class_count, side, side]
        outputs.append(helper.make_tensor_value_info(logits, TensorProto.FLOAT, shape_of_logits))
    return writer.model(outputs)


def head_graph(
    heads: Sequence[Any], shapes: Sequence[Sequence[int]], calibration: PixelCalibration, side_px: int
) -> onnx.ModelProto:
    """Returns the graph `stride4`, `stride8` … float16 → `segmentation` `(N, S, S)`, `presence` and `overlap` `(N, C)`.

    Args:
        shapes: of the maps of an image, by stride.
    """
    writer = Writer()
    names = [f"stride{stride}" for stride in FINE_STRIDES]
    maps = [writer.node("Cast", [name], to=TensorProto.FLOAT) for name in names]
    logits = _logits(writer, heads, maps, calibration.temperature)
    sides = writer.constant("sides", np.array([side_px, side_px], dtype=np.int64))
    model = writer.model(
        _add_map(writer, logits, sides, calibration.presence, heads[0].class_count - 1, [side_px, side_px])
    )
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["images", *shape])
        for name, shape in zip(names, shapes, strict=True)
    )
    return model


def _logits(writer: Writer, heads: Sequence[Any], maps: Sequence[str], temperature: float) -> str:
    """Adds the heads. Returns the mean of their logits `(N, C + 1, S/4, S/4)`, divided by the temperature."""
    total = writer.node("Sum", [_head(writer, head, maps) for head in heads])
    scale = writer.constant("scale_of_logits", np.array(1 / (len(heads) * temperature), dtype=np.float32))
    return writer.node("Mul", [total, scale], output=LOGITS)


def _head(writer: Writer, head: Any, maps: Sequence[str]) -> str:
    """Adds a head; see `SegmentationHead`. Returns its logits."""
    mean = writer.node("GlobalAveragePool", [maps[-1]])
    gate = writer.node("Sigmoid", [writer.convolution(head.gate, None, mean, relu6=False)])
    coarsest = writer.node("Mul", [add_block(writer, head.lateral[-1], maps[-1]), gate])
    flow = add_depthwise(writer, head.smooth[-1], coarsest)
    for level in reversed(range(len(maps) - 1)):
        flow = add_doubling(writer, add_block(writer, head.narrow, flow) if level == 0 else flow)
        own = add_block(writer, head.lateral[level], maps[level])
        flow = add_depthwise(writer, head.smooth[level], writer.node("Add", [own, flow]))
    return writer.convolution(head.classes, None, flow, relu6=False)


def _add_map(
    writer: Writer, logits: str, sides: str, presence: Calibration, concept_count: int, sizes: Sequence[int | str]
) -> list[onnx.ValueInfoProto]:
    """Adds the outputs of a map, and returns them.

    Args:
        sides: height and width of the map.
        sizes: the same in the description of the output.
    """
    at_pixels = writer.node(
        "Resize", [logits, "", "", sides], mode="linear", coordinate_transformation_mode="half_pixel", axes=[2, 3]
    )
    writer.node(
        "Cast", [writer.node("ArgMax", [at_pixels], axis=1, keepdims=0)], output=SEGMENTATION, to=TensorProto.UINT8
    )

    def integers(name: str, *values: int) -> str:
        return writer.constant(name, np.array(values, dtype=np.int64))

    # Presence and overlap are computed on the cells of the logits, a sixteenth of the pixels.
    classes = writer.node("Softmax", [logits], axis=1)
    best = writer.node("ReduceMax", [classes, integers("axis1", 1)], keepdims=1)
    bounds = [integers("first", 1), integers("last", np.iinfo(np.int64).max), integers("axis1", 1)]
    shares = writer.node("Slice", [classes, *bounds])
    own = writer.node("Cast", [writer.node("Equal", [shares, best])], to=TensorProto.FLOAT)
    own_shares = writer.node("Mul", [shares, own])
    plane = integers("plane", 2, 3)
    highest = writer.node("ReduceMax", [own_shares, plane], keepdims=0)
    calibrated = add_calibration(writer, highest, presence, "presence_if_any")
    writer.node("Mul", [calibrated, writer.node("Sign", [highest])], output=PRESENCE)
    inside = writer.node("ReduceSum", [own_shares, plane], keepdims=0)
    areas = writer.node(
        "Add",
        [writer.node("ReduceSum", [own, plane], keepdims=0), writer.node("ReduceSum", [shares, plane], keepdims=0)],
    )
    least = writer.constant("area_min", np.array(AREA_MIN, dtype=np.float32))
    union = writer.node("Max", [writer.node("Sub", [areas, inside]), least])
    writer.node("Div", [inside, union], output=OVERLAP)
    return [
        helper.make_tensor_value_info(SEGMENTATION, TensorProto.UINT8, ["images", *sizes]),
        helper.make_tensor_value_info(PRESENCE, TensorProto.FLOAT, ["images", concept_count]),
        helper.make_tensor_value_info(OVERLAP, TensorProto.FLOAT, ["images", concept_count]),
    ]
