"""Adds the mask head of a detector to its ONNX graph: masks of the selected objects, in the frames of their boxes."""

from typing import Any, NamedTuple

import numpy as np
from vesta_common.media.model_signatures import MASKS

from vesta_training.features.onnx_graph import Writer
from vesta_training.models.graph_layers import add_depthwise

CROP_SIDE = 14
MASK_SIDE = 2 * CROP_SIDE
"""Side of the masks of `MaskHead`."""

__all__ = ["CROP_SIDE", "MASKS", "MASK_SIDE", "Selected", "add_masks"]


class Selected(NamedTuple):
    """The selected objects of a graph.

    Attributes:
        per_image: K, the number of objects of each image.
        boxes: `(N, K, 4)`, as shares of the sides of the image.
        scores: `(N, K)`; 0 for padding.
        numbers: `(N, K)` int64, of their concepts.
    """

    per_image: int
    boxes: str
    scores: str
    numbers: str


def add_masks(writer: Writer, head: Any, finest: str, selected: Selected, cells: int) -> None:
    """Adds the output `masks`, the probabilities `(N, K, 28, 28)`; 0 for padding, for which nothing is computed.

    Args:
        head: a fitted `MaskHead`.
        finest: `(N, width, cells, cells)`, the finest maps of the pyramid.
    """

    def integers(name: str, *values: int) -> str:
        return writer.constant(name, np.array(values, dtype=np.int64))

    is_object = writer.node("Greater", [selected.scores, writer.constant("zero", np.array(0, dtype=np.float32))])
    places = writer.node("Transpose", [writer.node("NonZero", [is_object])], perm=[1, 0])  # (R, 2): image, object
    boxes = writer.node("GatherND", [selected.boxes, places])
    boxes = writer.node("Mul", [boxes, writer.constant("cells", np.array(cells, dtype=np.float32))])
    images = writer.node("Gather", [places, writer.constant("first", np.array(0, dtype=np.int64))], axis=1)
    flow = writer.node(
        "RoiAlign",
        [finest, boxes, images],
        output_height=CROP_SIDE,
        output_width=CROP_SIDE,
        sampling_ratio=1,
        mode="avg",
        coordinate_transformation_mode="half_pixel",
    )
    for layer in head.layers:
        flow = add_depthwise(writer, layer, flow)
    flow = _enlarged(writer, head.enlarge, flow)
    flow = writer.convolution(head.masks, None, flow, relu6=False)  # (R, C, 28, 28)
    if head.masks.out_channels == 1:
        flow = writer.node("Squeeze", [flow, integers("axis1", 1)])
    else:
        numbers = writer.node("GatherND", [selected.numbers, places])
        numbers = writer.node("Unsqueeze", [numbers, integers("axis1", 1)])
        flow = writer.node("GatherND", [flow, numbers], batch_dims=1)
    shape = writer.node(
        "Concat", [writer.node("Shape", [selected.scores]), integers("mask_sides", MASK_SIDE, MASK_SIDE)], axis=0
    )
    nothing = writer.node("ConstantOfShape", [shape])
    writer.node("ScatterND", [nothing, places, writer.node("Sigmoid", [flow])], output=MASKS)


def _enlarged(writer: Writer, layer: Any, flow: str) -> str:
    """Adds a `ConvTranspose2d` with ReLU6."""
    weights, bias = (
        writer.constant(f"enlarge.{name}", getattr(layer, name).detach().cpu().float().numpy())
        for name in ("weight", "bias")
    )
    flow = writer.node(
        "ConvTranspose",
        [flow, weights, bias],
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
    )
    limits = [writer.constant(name, np.array(value, dtype=np.float32)) for name, value in (("zero", 0), ("six", 6))]
    return writer.node("Clip", [flow, *limits])
