"""The layout of Triton's model repository in the object store: one Triton model per backbone or complete model, with one configuration."""

import hashlib
import re

from vesta_common.errors import NotFound
from vesta_common.media.model_input import SQUARE, InputFormat
from vesta_common.storage.objects import ObjectStore

PREFIX = "triton"
_OUR_NAME = re.compile(r"(backbone|model)-[0-9a-f]{32}")


def backbone_name(digest: str, declared: InputFormat = SQUARE) -> str:
    """Returns Triton's name of the backbone with this SHA-256, which all deployments of models with this backbone share.

    Args:
        declared: the input. Triton's configuration of the backbone states its size.
    """
    if (declared.height_px, declared.width_px) != (SQUARE.height_px, SQUARE.width_px):
        digest = hashlib.sha256(f"{digest} {declared.height_px} {declared.width_px}".encode()).hexdigest()
    return f"backbone-{digest[:32]}"


def whole_name(digest: str) -> str:
    """Returns Triton's name of the complete model with this SHA-256. Equal models are loaded once for all deployments."""
    return f"model-{digest[:32]}"


def is_whole(name: str) -> bool:
    """Whether a name of this service is that of a complete model."""
    return name.startswith("model-")


def is_ours(name: str) -> bool:
    """Whether a model in Triton was written by this service. The repository may contain models of others."""
    return bool(_OUR_NAME.fullmatch(name))


def find_configuration(store: ObjectStore, name: str) -> str | None:
    """Returns the configuration of a model in the repository; None if the model is missing or incomplete."""
    try:
        return store.get(f"{PREFIX}/{name}/config.pbtxt").decode()
    except NotFound:
        return None


def write_model(store: ObjectStore, name: str, onnx: bytes, configuration: str) -> None:
    """Writes a model, with its configuration last, so that Triton never loads a half-written model."""
    store.put_named(f"{PREFIX}/{name}/1/model.onnx", onnx)
    write_configuration(store, name, configuration)


def remove_model(store: ObjectStore, name: str) -> None:
    """Deletes a model, with its configuration first, for the same reason. A missing model is not an error."""
    store.delete(f"{PREFIX}/{name}/config.pbtxt")
    store.delete(f"{PREFIX}/{name}/1/model.onnx")


def write_configuration(store: ObjectStore, name: str, configuration: str) -> None:
    """Replaces the configuration of a model. Triton reads it when it loads the model again."""
    store.put_named(f"{PREFIX}/{name}/config.pbtxt", configuration.encode())
