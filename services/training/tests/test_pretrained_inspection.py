"""The validation of imported detectors: accepted and rejected files, and the features that are computed from accepted ones."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from tiny_detector import TinyDetector
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from vesta_common.errors import InvalidArgument
from vesta_training.pretrained.card import read_card
from vesta_training.pretrained.features_graph import PREFIX, features_graph
from vesta_training.pretrained.inspection import FILE_NAME, Inspected, inspect, inspect_file
from vesta_training.pretrained.network import load_graph, read_network


def inspect_content(folder: Path, content: bytes) -> Inspected:
    (folder / FILE_NAME).write_bytes(content)
    return inspect(folder, FILE_NAME)


def custom_operator() -> bytes:
    tiny = TinyDetector()
    tiny.nodes[1].domain = "com.example"
    return tiny.model(domains=["com.example"]).SerializeToString()


def post_processing() -> bytes:
    tiny = TinyDetector()
    tiny.nodes.append(helper.make_node("Softmax", ["output"], ["after"]))
    tiny.outputs = [tiny.an_output("after", [1, tiny.cells, 8])]
    return tiny.content()


def suppression() -> bytes:
    tiny = TinyDetector()
    tiny.nodes.append(helper.make_node("NonMaxSuppression", ["output", "output"], ["after"]))
    tiny.outputs = [tiny.an_output("after", [1, 3])]
    return tiny.content()


def torchvision_weights() -> bytes:
    """The weights of a detector of torchvision, as `torch.save` writes them."""
    file = io.BytesIO()
    detector = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    torch.save(detector.state_dict(), file)
    return file.getvalue()


def pickled_weights() -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def newer_opset() -> bytes:
    return TinyDetector().model(opset=21).SerializeToString()


def external_data() -> bytes:
    model = TinyDetector().model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model.SerializeToString()


def integer_input() -> bytes:
    tiny = TinyDetector()
    tiny.input.type.tensor_type.elem_type = TensorProto.UINT8
    return tiny.content()


def variable_input() -> bytes:
    tiny = TinyDetector()
    tiny.input.type.tensor_type.shape.dim[2].dim_param = "height"
    return tiny.content()


def two_outputs() -> bytes:
    tiny = TinyDetector()
    tiny.outputs.append(tiny.an_output("tower8.c", [1, 8, 8, 8]))
    return tiny.content()


def a_classifier() -> bytes:
    tiny = TinyDetector()
    tiny.nodes = [*tiny.nodes[:2], helper.make_node("Sigmoid", [tiny.nodes[1].output[0]], ["output"])]
    tiny.outputs = [tiny.an_output("output", [1, 8, 8, 8])]
    return tiny.content()


def swapped_scores() -> bytes:
    tiny = TinyDetector()
    for node in tiny.nodes:
        if node.output[0].startswith("level"):
            node.input[:] = [node.input[0], node.input[2], node.input[1]]
    return tiny.content()


def rows_first() -> bytes:
    tiny = TinyDetector()
    tiny.nodes[-1].attribute[0].ints[:] = [0, 1, 2]
    tiny.outputs = [tiny.an_output("output", [1, 8, tiny.cells])]
    return tiny.content()


def not_finite() -> bytes:
    tiny = TinyDetector()
    tiny.tensors[0].raw_data = np.full(8 * 3 * 64, np.nan, np.float32).tobytes()
    return tiny.content()


def impossible_shape() -> bytes:
    tiny = TinyDetector()
    shape = next(tensor for tensor in tiny.tensors if tensor.name == "shape8")
    shape.raw_data = np.array([1, 7, 13]).tobytes()
    tiny.nodes[-1].input[0] = "flat8"
    return tiny.content()


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (lambda: b"", "DETECTOR_NOT_ONNX", "no graph"),
        (lambda: b"not a model at all", "DETECTOR_NOT_ONNX", "not a protobuf"),
        (lambda: TinyDetector().content()[:-40], "DETECTOR_NOT_ONNX", "not"),
        (torchvision_weights, "DETECTOR_NOT_ONNX", "a PyTorch checkpoint .* torch.onnx.export"),
        (pickled_weights, "DETECTOR_NOT_ONNX", "a pickle, such as a PyTorch checkpoint"),
        (lambda: b"\x1c\0\0\0TFL3" + bytes(20), "DETECTOR_NOT_ONNX", "a TensorFlow Lite file"),
        (lambda: b"\x40" + bytes(7) + b'{"w": {}}', "DETECTOR_NOT_ONNX", "a safetensors file"),
        (lambda: b"\x89HDF\r\n", "DETECTOR_NOT_ONNX", "an HDF5 file"),
        (lambda: b"<?xml version='1.0'?>", "DETECTOR_NOT_ONNX", "an XML file"),
        (external_data, "DETECTOR_EXTERNAL_DATA", "save_as_external_data=False"),
        (custom_operator, "DETECTOR_OPERATOR_UNSUPPORTED", "com.example.Relu"),
        (post_processing, "DETECTOR_OPERATOR_UNSUPPORTED", "Softmax .as detectors that predict distributions"),
        (suppression, "DETECTOR_OPERATOR_UNSUPPORTED", "torchvision's SSDLite, SSD, FCOS and RetinaNet"),
        (newer_opset, "DETECTOR_OPERATOR_UNSUPPORTED", "opset 21"),
        (integer_input, "DETECTOR_INPUT_UNSUPPORTED", "UINT8"),
        (variable_input, "DETECTOR_INPUT_UNSUPPORTED", "variable"),
        (two_outputs, "DETECTOR_OUTPUT_UNSUPPORTED", "2 outputs"),
        (a_classifier, "DETECTOR_OUTPUT_UNSUPPORTED", "strides"),
        (swapped_scores, "DETECTOR_OUTPUT_UNSUPPORTED", "scores"),
        (rows_first, "DETECTOR_OUTPUT_UNSUPPORTED", "shape"),
        (not_finite, "DETECTOR_INVALID", "not finite"),
    ],
)
def test_a_file_that_cannot_be_used_is_rejected_with_its_cause(
    tmp_path: Path, content: Callable[[], bytes], reason: str, words: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        inspect_content(tmp_path, content())
    assert refused.value.reason == reason
    assert re.search(words, refused.value.message)


def test_a_graph_with_impossible_shapes_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        inspect_content(tmp_path, impossible_shape())
    assert refused.value.reason.startswith("DETECTOR_")


@pytest.mark.parametrize("side_px", [64, 96])
@pytest.mark.parametrize("class_count", [1, 4, 80])
def test_a_detector_is_accepted_in_the_sandbox(tmp_path: Path, side_px: int, class_count: int) -> None:
    (tmp_path / FILE_NAME).write_bytes(TinyDetector(side_px, class_count).content())
    assert inspect_file(tmp_path) == Inspected(side_px, class_count)


def test_an_expensive_file_is_rejected_and_the_process_survives(tmp_path: Path) -> None:
    tiny = TinyDetector()
    tiny.tensors[0].raw_data = bytes(4)
    shape = [8, 3, 2**18, 2**18]  # 412 GB
    tiny.nodes.insert(0, helper.make_node("ConstantOfShape", ["size"], ["large"]))
    tiny._constant("size", np.array(shape))
    tiny.nodes[1].input[1] = "large"
    (tmp_path / FILE_NAME).write_bytes(tiny.content())
    with pytest.raises(InvalidArgument) as refused:
        inspect_file(tmp_path)
    assert refused.value.reason in {"DETECTOR_TOO_EXPENSIVE", "DETECTOR_NOT_ONNX", "DETECTOR_INVALID"}


def test_features_of_a_batch_equal_those_of_single_images() -> None:
    model = load_graph(TinyDetector().content())
    network = read_network(model)
    assert [level.feature_count for level in network.levels] == [8, 8, 8]
    part = features_graph(model, network)
    onnx.checker.check_model(part, full_check=True)
    session = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).integers(0, 256, (3, 3, 64, 64)).astype(np.float32)
    names = [PREFIX + level.features for level in network.levels]
    batch = session.run(names, {PREFIX + "images": images})
    single = session.run(names, {PREFIX + "images": images[2:]})
    for all_rows, one in zip(batch, single, strict=True):
        np.testing.assert_allclose(all_rows[2:], one, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("license: Apache-2.0", "BGR"),
        ("---\nlicense: MIT\ncolour_order: RGB\n---\n# A detector\n\nText with: colons", "RGB"),
    ],
)
def test_a_card_is_yaml_or_markdown_with_a_header(text: str, order: str) -> None:
    card = read_card(text)
    assert (card.license in {"Apache-2.0", "MIT"}, card.colour_order) == (True, order)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no keys"),
        ("# Only a title", "no keys"),
        ("source: somewhere", "no key license"),
        ("license: ''", "no key license"),
        ("license: [", "not valid YAML"),
        ("license: MIT\ncolour_order: GRB", "colour_order"),
        ("license: !!python/object:os.system x", "not valid YAML"),
        ("---\n# no end", "no keys"),
    ],
)
def test_a_card_without_a_licence_is_rejected(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as refused:
        read_card(text)
    assert refused.value.reason == "DETECTOR_CARD_INVALID"
