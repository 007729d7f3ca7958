"""The layout of Triton's model repository in the object store: one Triton model per backbone or complete model, with one configuration."""

import re

from vesta_common.errors import NotFound
from vesta_common.media.image_formats import MODEL_SIDE_PX
from vesta_common.storage.objects import ObjectStore

# Larger batches are not faster on a CPU and use twice the memory.
BATCH_MAX = 4
PREFIX = "triton"
_OUR_NAME = re.compile(r"(backbone|model)-[0-9a-f]{32}")

# Several instances of one thread have 1.5 times the throughput of one instance with as many threads. uint8 pixels are a quarter of float32.
_CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch_max}
input [ {{ name: "pixels" data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] }} ]
output [
{outputs}
]
instance_group [ {{ count: {instances} kind: KIND_{kind} }} ]
dynamic_batching {{ }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
"""
_OUTPUT = '  {{ name: "{name}" data_type: TYPE_FP32 dims: [ {size} ] }}'


def backbone_name(digest: str) -> str:
    """Returns Triton's name of the backbone with this SHA-256, which all deployments of models with this backbone share."""
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


def model_configuration(
    name: str, concept_count: int, embedding_dimension: int, *, gpu: bool, instance_count: int
) -> str:
    """Returns the `config.pbtxt` of a model.

    Args:
        concept_count: 0 for a model that only computes embeddings.
        instance_count: instances of one thread each, which is the number of concurrent inferences.
    """
    sizes = {"probabilities": concept_count, "embedding": embedding_dimension}
    outputs = [_OUTPUT.format(name=output, size=size) for output, size in sizes.items() if size]
    return _CONFIG.format(
        name=name,
        batch_max=BATCH_MAX,
        side=MODEL_SIDE_PX,
        outputs=",\n".join(outputs),
        instances=instance_count,
        kind="GPU" if gpu else "CPU",
    )


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
