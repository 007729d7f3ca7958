"""The network of an imported detector: its ONNX graph, and the tensors of it that a new head learns from.

Detectors of the YOLOX family (Ge et al., arXiv 2107.08430) predict at three strides, with separate convolutions for the classes, for the
box and for the probability that there is an object ("objectness"). They are recognised by these last convolutions and not by their names,
so that exports of any tool are accepted, with decoded boxes or without.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from vesta_common.errors import InvalidArgument

from vesta_training.features.onnx_graph import OPSET, STRIDES
from vesta_training.pretrained.formats import families_with, format_of

SIDE_PX_MIN, SIDE_PX_MAX = 64, 1280
OPSET_MIN = 11
BOX_VALUES = 4
SUPPORTED = frozenset(
    (
        *("Add", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "Div"),
        *("Exp", "Expand", "Floor", "Gather", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool"),
        *("Mul", "Pad", "Range", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice"),
        *("Split", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Upsample"),
    )
)
"""The operators of exports of the YOLOX family. None of them reads a file, runs a subgraph, or repeats without a limit."""
FAMILY = "a detector of the YOLOX family with one output (1, A, 5 + C): box, objectness and C classes at the strides 8, 16 and 32"


@dataclass(frozen=True, slots=True)
class Level:
    """The tensors of one stride; each is the output of a convolution, but `features` is its input.

    Attributes:
        features: `(N, F, S/stride, S/stride)`, from which the classes are predicted.
        feature_count: F.
        classes: `(N, C, …)`, logits.
        box: `(N, 4, …)`: offsets of the centre from the corner of the cell, and logarithms of the sides, in strides.
        objectness: `(N, 1, …)`, logits.
    """

    stride: int
    features: str
    feature_count: int
    classes: str
    box: str
    objectness: str


@dataclass(frozen=True, slots=True)
class Network:
    """A network.

    Attributes:
        input: its name; float32 `(N, 3, S, S)`, with values from 0 to 255.
        output: its name; `(N, A, 5 + C)`.
        side_px: S.
        class_count: C.
        levels: by stride.
    """

    input: str
    output: str
    side_px: int
    class_count: int
    levels: tuple[Level, ...]


def load_graph(content: bytes) -> onnx.ModelProto:
    """Parses an ONNX file, and checks that it can be executed without other files and without code that is not part of onnxruntime.

    Raises:
        InvalidArgument: DETECTOR_NOT_ONNX, DETECTOR_EXTERNAL_DATA or DETECTOR_OPERATOR_UNSUPPORTED.
    """
    if name := format_of(content):
        raise _not_onnx(f"it is {name}; export the network with torch.onnx.export or the tool that wrote the file")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise _not_onnx("it is not a protobuf message") from error
    if not model.ir_version or not model.graph.node or not model.graph.output:
        raise _not_onnx("it contains no graph")
    if any(tensor.data_location == TensorProto.EXTERNAL or tensor.external_data for tensor in _tensors(model)):
        raise InvalidArgument(
            "the weights are in other files than the ONNX file; save it with save_as_external_data=False",
            reason="DETECTOR_EXTERNAL_DATA",
        )
    _check_operators(model)
    return model


def read_network(model: onnx.ModelProto) -> Network:
    """Returns the parts of a network.

    Raises:
        InvalidArgument: DETECTOR_NOT_ONNX, DETECTOR_INPUT_UNSUPPORTED or DETECTOR_OUTPUT_UNSUPPORTED.
    """
    entry, side_px = _input(model)
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise _not_onnx(f"its graph is not valid: {' '.join(str(error).split())[:300]}") from error
    if len(model.graph.output) != 1:
        raise _not_a_detector(f"it has {len(model.graph.output)} outputs")
    shapes = {
        info.name: tuple(size.dim_value for size in info.type.tensor_type.shape.dim)
        for info in inferred.graph.value_info
    }
    by_stride: dict[int, list[onnx.NodeProto]] = {}
    for node in _last_convolutions(model):
        shape = shapes.get(node.output[0], ())
        if len(shape) != 4 or not shape[2] or shape[2] != shape[3] or side_px % shape[2]:
            raise _not_a_detector(f"the convolution {node.output[0][:60]!r} before its output has the shape {shape}")
        by_stride.setdefault(side_px // shape[2], []).append(node)
    if tuple(sorted(by_stride)) != STRIDES:
        found = ", ".join(str(stride) for stride in sorted(by_stride)) or "none"
        raise _not_a_detector(f"the strides of its predictions are {found}")
    levels = tuple(_level(stride, by_stride[stride], shapes) for stride in STRIDES)
    counts = {shapes[level.classes][1] for level in levels}
    if len(counts) != 1:
        raise _not_a_detector(f"its strides predict different numbers of classes ({sorted(counts)})")
    return Network(entry, model.graph.output[0].name, side_px, counts.pop(), levels)


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_operators(model: onnx.ModelProto) -> None:
    """Raises InvalidArgument: DETECTOR_OPERATOR_UNSUPPORTED."""
    domains = {one.domain for one in model.opset_import} - {"", "ai.onnx"}
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if foreign or model.functions:
        found = ", ".join(foreign)[:200] or "functions"
        raise _unsupported_operators(f"the file has operators that are not part of ONNX: {found}")
    unknown = sorted({node.op_type for node in model.graph.node} - SUPPORTED)
    if unknown:
        others = families_with(unknown)
        raise _unsupported_operators(
            f"the file has operators that detectors of the YOLOX family do not need: {', '.join(unknown)[:200]}"
            + (f" (as {others} have)" if others else "")
        )
    versions = [one.version for one in model.opset_import if one.domain not in domains]
    if len(versions) != 1 or not OPSET_MIN <= versions[0] <= OPSET:
        raise _unsupported_operators(f"the file has the opset {versions[0] if versions else 'none'}")


def _input(model: onnx.ModelProto) -> tuple[str, int]:
    """Returns the name of the input, and the side of its square.

    Raises:
        InvalidArgument: DETECTOR_INPUT_UNSUPPORTED.
    """
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in known]
    if len(inputs) == 1:
        kind = inputs[0].type.tensor_type
        sizes = [size.dim_value for size in kind.shape.dim]
        if kind.elem_type == TensorProto.FLOAT and len(sizes) == 4 and sizes[1] == 3 and sizes[2] == sizes[3]:
            side_px = int(sizes[2])
            if SIDE_PX_MIN <= side_px <= SIDE_PX_MAX and side_px % STRIDES[-1] == 0:
                return inputs[0].name, side_px
        found = f"an input of type {TensorProto.DataType.Name(kind.elem_type)} and shape {tuple(sizes)}, where 0 is a variable size"
    else:
        found = f"{len(inputs)} inputs"
    raise InvalidArgument(
        f"the file has {found}; export it with one input of type FLOAT and a fixed shape (1, 3, S, S), where S is a multiple of "
        f"{STRIDES[-1]} from {SIDE_PX_MIN} to {SIDE_PX_MAX}",
        reason="DETECTOR_INPUT_UNSUPPORTED",
    )


def _last_convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Returns the convolutions from which the output is computed without further convolutions."""
    producers = {name: node for node in model.graph.node for name in node.output}
    waiting, seen, found = deque([model.graph.output[0].name]), set(), []
    while waiting:
        name = waiting.popleft()
        node = producers.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        if node.op_type == "Conv":
            found.append(node)
        else:
            waiting.extend(node.input)
    return found


def _level(stride: int, nodes: list[onnx.NodeProto], shapes: dict[str, tuple[int, ...]]) -> Level:
    """Returns the level of three convolutions: box and objectness have the same input, and the classes another."""
    if len(nodes) != 3:
        raise _not_a_detector(f"{len(nodes)} convolutions predict at the stride {stride}, where three are expected")
    for classes in nodes:
        box, objectness = sorted(
            (node for node in nodes if node is not classes), key=lambda node: -shapes[node.output[0]][1]
        )
        counts = (shapes[box.output[0]][1], shapes[objectness.output[0]][1])
        if box.input[0] == objectness.input[0] != classes.input[0] and counts == (BOX_VALUES, 1):
            features = shapes.get(classes.input[0], ())
            if len(features) == 4 and features[1]:
                return Level(
                    stride, classes.input[0], features[1], classes.output[0], box.output[0], objectness.output[0]
                )
    raise _not_a_detector(f"its predictions at the stride {stride} are not a box, an objectness and classes")


def _not_onnx(why: str) -> InvalidArgument:
    return InvalidArgument(
        f"the file is not a valid ONNX model: {why}; send the .onnx file of {FAMILY}", reason="DETECTOR_NOT_ONNX"
    )


def _unsupported_operators(what: str) -> InvalidArgument:
    return InvalidArgument(
        f"{what}; export {FAMILY}, with an opset from {OPSET_MIN} to {OPSET} and without post-processing",
        reason="DETECTOR_OPERATOR_UNSUPPORTED",
    )


def _not_a_detector(why: str) -> InvalidArgument:
    return InvalidArgument(f"{why}; supported is {FAMILY}", reason="DETECTOR_OUTPUT_UNSUPPORTED")
