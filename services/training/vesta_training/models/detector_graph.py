"""Builds the ONNX graphs of a detector: from uint8 pixels, or from cached feature maps, to objects. Standard operators only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from vesta_training.example import Array
from vesta_training.features.onnx_graph import (
    EMBEDDING,
    PIXELS,
    STRIDES,
    Writer,
    add_embedding,
    add_images,
    add_maps,
)
from vesta_training.models.graph_layers import Calibration, add_block, add_calibration, add_depthwise, add_doubling
from vesta_training.models.mask_graph import MASK_SIDE, MASKS, Selected, add_masks

OBJECTS = "objects"
CANDIDATE_BOXES, CANDIDATE_SCORES = "candidate_boxes", "candidate_scores"
# Candidates per image that non-maximum suppression compares; limits its time.
CANDIDATES_MAX = 1000
LOG_SIDE_MAX = 4.0
"""Limits the logarithm of the size of a box, relative to its default box, so that an untrained head gives finite boxes."""


@dataclass(frozen=True, slots=True)
class Selection:
    """How candidates become objects; see `ObjectSelection`."""

    score_min: float
    iou_max: float
    objects_max: int


def detector_graph(
    network: Any,
    head: Any,
    defaults: Array,
    calibration: Calibration,
    selection: Selection,
    *,
    side_px: int,
    embedding_dimension: int,
    with_candidates: bool = False,
) -> onnx.ModelProto:
    """Returns the graph `pixels` uint8 `(N, H, W, 3)` → `objects` `(N, K, 6)` in pixels of the input, and `embedding` `(N, D)`.

    A head with a mask head also gives `masks` `(N, K, 28, 28)`. The embedding is computed from the maps of the head, because a second pass
    of the images through the backbone, at another size, would take half as long again.

    Args:
        head: a fitted `DetectionHead`.
        defaults: `(A, 4)`; see `default_boxes.lay_out`.
        with_candidates: adds the outputs `candidate_boxes` `(N, A, 4)`, as shares of the image, and `candidate_scores` `(N, A, C)`.
    """
    writer = Writer()
    maps = add_maps(writer, network, add_images(writer, side_px))
    boxes, scores, finest = _candidates(writer, head, [flow for flow, _ in maps.values()], defaults, calibration)
    shape = writer.node("Shape", [PIXELS])
    sides = writer.node("Gather", [shape, writer.constant("width_height", np.array([2, 1, 2, 1], dtype=np.int64))])
    sides = writer.node("Cast", [sides], to=TensorProto.FLOAT)
    selected = _add_objects(writer, boxes, scores, sides, selection, len(defaults), head.class_count - 1)
    objects = _outputs(writer, head, finest, selected, side_px // STRIDES[0])
    add_embedding(writer, network, maps)
    outputs = [
        *objects,
        helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["images", embedding_dimension]),
    ]
    if with_candidates:
        outputs += [
            helper.make_tensor_value_info(boxes, TensorProto.FLOAT, ["images", len(defaults), 4]),
            helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["images", len(defaults), head.class_count - 1]),
        ]
    return writer.model(outputs)


def head_graph(
    head: Any, shapes: Sequence[Sequence[int]], defaults: Array, calibration: Calibration, selection: Selection
) -> onnx.ModelProto:
    """Returns the graph `stride8`, `stride16`, `stride32` float16 → `objects` `(N, K, 6)`, as shares of the sides of the image.

    A head with a mask head also gives `masks` `(N, K, 28, 28)`.

    Args:
        shapes: of the maps of an image, by stride.
    """
    writer = Writer()
    names = [f"stride{stride}" for stride in STRIDES]
    maps = [writer.node("Cast", [name], to=TensorProto.FLOAT) for name in names]
    boxes, scores, finest = _candidates(writer, head, maps, defaults, calibration)
    sides = writer.constant("sides", np.ones(4, dtype=np.float32))
    selected = _add_objects(writer, boxes, scores, sides, selection, len(defaults), head.class_count - 1)
    model = writer.model(_outputs(writer, head, finest, selected, shapes[0][1]))
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["images", *shape])
        for name, shape in zip(names, shapes, strict=True)
    )
    return model


def add_objects(
    writer: Writer, boxes: str, scores: str, sides: str, selection: Selection, candidate_count: int, concept_count: int
) -> onnx.ValueInfoProto:
    """Adds the output `objects`: candidates after non-maximum suppression per concept, in descending order of score.

    Args:
        boxes: `(N, A, 4)`, as shares of the sides of the input.
        scores: `(N, A, C)`.
        sides: width, height, width and height, by which boxes are multiplied.
        candidate_count, concept_count: A and C.
    """
    selected = _add_objects(writer, boxes, scores, sides, selection, candidate_count, concept_count)
    return helper.make_tensor_value_info(OBJECTS, TensorProto.FLOAT, ["images", selected.per_image, 6])


def _outputs(writer: Writer, head: Any, finest: str, selected: Selected, cells: int) -> list[onnx.ValueInfoProto]:
    """Adds the masks of the objects, if the head has a mask head. Returns the outputs for objects.

    Args:
        cells: of a side of the finest maps.
    """
    outputs = [helper.make_tensor_value_info(OBJECTS, TensorProto.FLOAT, ["images", selected.per_image, 6])]
    if head.masks is not None:
        add_masks(writer, head.masks, finest, selected, cells)
        outputs.append(
            helper.make_tensor_value_info(
                MASKS, TensorProto.FLOAT, ["images", selected.per_image, MASK_SIDE, MASK_SIDE]
            )
        )
    return outputs


def _candidates(
    writer: Writer, head: Any, maps: Sequence[str], defaults: Array, calibration: Calibration
) -> tuple[str, str, str]:
    """Adds the head. Returns the boxes `(N, A, 4)`, as shares of the image, the calibrated scores `(N, A, C)`, and the finest maps."""
    flow = smooth = ""
    logits, offsets = [], []
    for level in reversed(range(len(STRIDES))):
        own = add_block(writer, head.lateral[level], maps[level])
        if flow:
            flow = add_doubling(writer, flow)
            own = writer.node("Add", [own, flow])
        flow = own
        smooth = add_depthwise(writer, head.smooth[level], flow)
        logits.append(_by_box(writer, _predictor(writer, head.classes[level], smooth), head.class_count))
        offsets.append(_by_box(writer, _predictor(writer, head.offsets[level], smooth), 4))
    all_logits = writer.node("Concat", logits[::-1], axis=1)
    all_offsets = writer.node("Concat", offsets[::-1], axis=1)
    return _decoded(writer, all_offsets, defaults), _calibrated(writer, all_logits, calibration), smooth


def _calibrated(writer: Writer, logits: str, calibration: Calibration) -> str:
    shares = writer.node("Softmax", [logits], axis=2)
    return add_calibration(writer, _sliced(writer, shares, 1, np.iinfo(np.int64).max), calibration, CANDIDATE_SCORES)


def _decoded(writer: Writer, offsets: str, defaults: Array) -> str:
    """Adds the decoding of offsets; see `network.decode`. Boxes are clipped to the image."""
    centre_scales = defaults[:, 2:] / np.array([10, 10], dtype=np.float32)
    moves = writer.node("Mul", [_sliced(writer, offsets, 0, 2), writer.constant("default.scales", centre_scales)])
    centres = writer.node("Add", [moves, writer.constant("default.centres", np.ascontiguousarray(defaults[:, :2]))])
    sides = writer.node("Div", [_sliced(writer, offsets, 2, 4), writer.constant("five", np.array(5, dtype=np.float32))])
    limit = writer.constant("log_side_max", np.array(LOG_SIDE_MAX, dtype=np.float32))
    sides = writer.node("Exp", [writer.node("Min", [sides, limit])])
    halves = writer.node("Mul", [sides, writer.constant("default.halves", defaults[:, 2:] / 2)])
    corners = writer.node(
        "Concat", [writer.node("Sub", [centres, halves]), writer.node("Add", [centres, halves])], axis=2
    )
    zero, one = (writer.constant(name, np.array(value, dtype=np.float32)) for name, value in (("zero", 0), ("one", 1)))
    return writer.node("Clip", [corners, zero, one], output=CANDIDATE_BOXES)


def _add_objects(
    writer: Writer, boxes: str, scores: str, sides: str, selection: Selection, candidate_count: int, concept_count: int
) -> Selected:
    """Adds the output `objects`: candidates after non-maximum suppression per concept, in descending order of score."""

    def integers(name: str, *values: int) -> str:
        return writer.constant(name, np.array(values, dtype=np.int64))

    compared = min(CANDIDATES_MAX, candidate_count)
    count = min(selection.objects_max, compared * concept_count)
    best = writer.node("ReduceMax", [scores, integers("axis2", 2)], keepdims=0)
    places = _top(writer, best, integers("compared", compared))[1]
    boxes = _gathered(writer, boxes, places, 4)
    scores = writer.node("Transpose", [_gathered(writer, scores, places, concept_count)], perm=[0, 2, 1])
    kept = writer.node(
        "NonMaxSuppression",
        [
            boxes,
            scores,
            integers("objects_max", count),
            writer.constant("iou_max", np.array([selection.iou_max], dtype=np.float32)),
            writer.constant("score_min", np.array([selection.score_min], dtype=np.float32)),
        ],
    )
    nothing = writer.node("Mul", [scores, writer.constant("zero", np.array(0, dtype=np.float32))])
    scores = writer.node("ScatterND", [nothing, kept, writer.node("GatherND", [scores, kept])])
    flat = writer.node("Reshape", [scores, integers("flat", 0, -1)])
    values, positions = _top(writer, flat, integers("object_count", count))
    divisor = integers("divisor", compared)
    numbers = writer.node("Div", [positions, divisor])
    boxes = _gathered(writer, boxes, writer.node("Mod", [positions, divisor]), 4)
    last = integers("last_axis", 2)
    as_floats = writer.node("Cast", [numbers], to=TensorProto.FLOAT)
    columns = [
        writer.node("Mul", [boxes, sides]),
        *(writer.node("Unsqueeze", [one, last]) for one in (values, as_floats)),
    ]
    rows = writer.node("Concat", columns, axis=2)
    is_object = writer.node("Sign", [writer.node("Unsqueeze", [values, last])])
    writer.node("Mul", [rows, is_object], output=OBJECTS)
    return Selected(count, boxes, values, numbers)


def _top(writer: Writer, values: str, count: str) -> tuple[str, str]:
    """Adds the largest values of each row, in descending order. Returns the values and their positions."""
    name = f"topk_{len(writer.nodes)}"
    outputs = [f"{name}.values", f"{name}.positions"]
    writer.nodes.append(helper.make_node("TopK", [values, count], outputs, name=name, axis=1))
    return outputs[0], outputs[1]


def _gathered(writer: Writer, values: str, positions: str, width: int) -> str:
    """Adds the rows `(N, P, width)` of values `(N, A, width)` at positions `(N, P)`."""
    last = writer.constant("last_axis", np.array([2], dtype=np.int64))
    repeats = writer.constant(f"repeats{width}", np.array([1, 1, width], dtype=np.int64))
    indices = writer.node("Tile", [writer.node("Unsqueeze", [positions, last]), repeats])
    return writer.node("GatherElements", [values, indices], axis=1)


def _sliced(writer: Writer, values: str, start: int, end: int) -> str:
    """Adds a slice of the last of three axes."""
    bounds = [writer.constant(f"bound{value}", np.array([value], dtype=np.int64)) for value in (start, end)]
    return writer.node("Slice", [values, *bounds, writer.constant("last_axis", np.array([2], dtype=np.int64))])


def _by_box(writer: Writer, predicted: str, values: int) -> str:
    """`(N, P · values, H, W)` → `(N, H · W · P, values)`."""
    rows = writer.node("Transpose", [predicted], perm=[0, 2, 3, 1])
    return writer.node("Reshape", [rows, writer.constant(f"by_box{values}", np.array([0, -1, values], dtype=np.int64))])


def _predictor(writer: Writer, module: Any, flow: str) -> str:
    """Adds a `Predictor`."""
    return writer.convolution(module.pointwise, None, add_block(writer, module.depthwise, flow), relu6=False)
