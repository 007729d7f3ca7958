"""The files of imported detectors in the object store, under the hash of their content."""

FOLDER = "pretrained-detectors"


def object_key(digest: str) -> str:
    """Returns the key of the ONNX file with this SHA-256."""
    return f"{FOLDER}/{digest}"
