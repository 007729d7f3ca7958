"""How a model version lies in Triton's model repository on the object store: one Triton model a digest, one configuration."""

import re

from vesta_common.errors import NotFound
from vesta_common.media.image_formats import MODEL_SIDE_PX
from vesta_common.storage.objects import ObjectStore

# Larger batches gain nothing on a CPU and take twice the memory.
BATCH_MAX = 4
PREFIX = "triton"
_OUR_NAME = re.compile(r"model-[0-9a-f]{32}")

# Instances of one thread each beat one instance of as many threads by half, and uint8 pixels are a quarter of float32 ones.
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


def triton_name(digest: str) -> str:
    """What Triton calls the model with this SHA-256: equal models are loaded once, whoever deploys them."""
    return f"model-{digest[:32]}"


def is_ours(name: str) -> bool:
    """Whether a model of Triton's is one that we laid down; a customer may keep others beside them."""
    return bool(_OUR_NAME.fullmatch(name))


def model_configuration(
    name: str, concept_count: int, embedding_dimension: int, *, gpu: bool, instance_count: int
) -> str:
    """The `config.pbtxt` of a model; one without concepts only embeds.

    Args:
        instance_count: of one thread each: how many calls are answered at the same time.
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
    """The configuration that a model was laid down with; None where it was not, or not wholly."""
    try:
        return store.get(f"{PREFIX}/{name}/config.pbtxt").decode()
    except NotFound:
        return None


def write_model(store: ObjectStore, name: str, onnx: bytes, configuration: str) -> None:
    """Lays the model down, its configuration last, so that a half-written model is never loadable."""
    store.put_named(f"{PREFIX}/{name}/1/model.onnx", onnx)
    write_configuration(store, name, configuration)


def remove_model(store: ObjectStore, name: str) -> None:
    """Removes a model, its configuration first, for the same reason; one that is not there is no error."""
    store.delete(f"{PREFIX}/{name}/config.pbtxt")
    store.delete(f"{PREFIX}/{name}/1/model.onnx")


def write_configuration(store: ObjectStore, name: str, configuration: str) -> None:
    """Configures a model anew; Triton takes it up when it loads the model again."""
    store.put_named(f"{PREFIX}/{name}/config.pbtxt", configuration.encode())
