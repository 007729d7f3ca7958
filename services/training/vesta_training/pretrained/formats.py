"""Recognises files and detectors that cannot be imported, so that the error names them and suggests what would work."""

from collections.abc import Collection

_STARTS = (
    (b"PK\x03\x04", "a PyTorch checkpoint or another ZIP archive, which has weights without a graph"),
    (b"\x80", "a pickle, such as a PyTorch checkpoint, which has weights without a graph"),
    (b"\x89HDF", "an HDF5 file, such as Keras writes"),
    (b"<?xml", "an XML file, such as OpenVINO writes"),
)
_TFLITE, _SAFETENSORS = b"TFL3", b'{"'
# By the operators that only they have, the most specific first.
_FAMILIES = (
    ("RoiAlign", "two-stage detectors, such as torchvision's Faster R-CNN"),
    (
        "NonMaxSuppression",
        "detectors with their post-processing, such as torchvision's SSDLite, SSD, FCOS and RetinaNet",
    ),
    ("MatMul", "transformers, such as DETR"),
    ("Softmax", "detectors that predict distributions of distances, such as YOLOv8, or the classes of SSD"),
)


def format_of(content: bytes) -> str:
    """Returns what a file is, if it is known and not ONNX; empty otherwise."""
    for start, name in _STARTS:
        if content.startswith(start):
            return name
    if content[4:8] == _TFLITE:
        return "a TensorFlow Lite file"
    return "a safetensors file, which has weights without a graph" if content[8:10] == _SAFETENSORS else ""


def families_with(operators: Collection[str]) -> str:
    """Returns which detectors have such operators; empty if unknown."""
    return next((name for operator, name in _FAMILIES if operator in operators), "")
