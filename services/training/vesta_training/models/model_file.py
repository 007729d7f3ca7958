"""The model file: an ONNX graph from uint8 pixels to an embedding and, with a head, calibrated probabilities or objects.

The metadata of the file contains the task, the concepts, the thresholds, the signature and the digest of the embedding space, so that the
file can be used without the registry. A head is appended to an exported backbone graph, which takes milliseconds; nothing is traced.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from vesta_contracts.training.v1 import ModelSignature

from vesta_training.errors import ExportError
from vesta_training.features.onnx_graph import EMBEDDING
from vesta_training.heads.linear_head import Head
from vesta_training.models.signature import make_signature, read_signature, signature_json
from vesta_training.recipes.choices import Task

PROBABILITIES = "probabilities"
WEIGHTS, BIAS = "head.weight", "head.bias"
KEY_PREFIX = "vesta."


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The content of a model file.

    Attributes:
        embedding_digest: identifies the embedding space.
        head: the linear head; None for a model without one.
        signature: its input and outputs.
    """

    task: Task
    signature: ModelSignature
    embedding_digest: str
    embedding_dimension: int
    concepts: tuple[str, ...]
    thresholds: tuple[float, ...]
    head: Head | None


def append_head(backbone: onnx.ModelProto, head: Head) -> onnx.ModelProto:
    """Returns a copy of the backbone graph with the nodes of the head after `embedding`."""
    model = onnx.ModelProto()
    model.CopyFrom(backbone)
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.ascontiguousarray(head.weights, dtype=np.float32), WEIGHTS),
            numpy_helper.from_array(np.ascontiguousarray(head.bias, dtype=np.float32), BIAS),
        ]
    )
    graph.node.append(helper.make_node("Gemm", [EMBEDDING, WEIGHTS, BIAS], ["logits"], name="logits"))
    activation = (
        helper.make_node("Softmax", ["logits"], [PROBABILITIES], name=PROBABILITIES, axis=1)
        if head.task is Task.CLASSIFICATION
        else helper.make_node("Sigmoid", ["logits"], [PROBABILITIES], name=PROBABILITIES)
    )
    graph.node.append(activation)
    # Probabilities are the first output, because many tools use the first output of a model.
    graph.output.insert(
        0, helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["images", len(head.concepts)])
    )
    return model


def write_model(model: onnx.ModelProto, head: Head | None, embedding_digest: str, path: Path) -> str:
    """Writes a model with a linear head, or with none, as `write_file` does."""
    task, concepts, thresholds = (
        (head.task, head.concepts, head.thresholds) if head is not None else (Task.EMBEDDING, (), ())
    )
    return write_file(model, task, concepts, thresholds, embedding_digest, make_signature(model), path)


def write_file(
    model: onnx.ModelProto,
    task: Task,
    concepts: Sequence[str],
    thresholds: Sequence[float],
    embedding_digest: str,
    signature: ModelSignature,
    path: Path,
) -> str:
    """Writes the model with its metadata atomically, and returns the SHA-256 of the file."""
    properties: Mapping[str, object] = {
        "task": task,
        "concepts": list(concepts),
        "thresholds": list(thresholds),
        "embedding_digest": embedding_digest,
        "signature": signature_json(signature),
    }
    helper.set_model_props(model, {KEY_PREFIX + key: json.dumps(value) for key, value in properties.items()})
    content = model.SerializeToString(deterministic=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return hashlib.sha256(content).hexdigest()


def read_model(path: Path) -> ModelFile:
    """Reads the metadata and the head of a model file.

    Raises:
        ExportError: the file was not written by `write_file`.
        FileNotFoundError: the file does not exist.
    """
    try:
        model = onnx.load(path)
        properties = {entry.key.removeprefix(KEY_PREFIX): json.loads(entry.value) for entry in model.metadata_props}
        task = Task(properties["task"])
        tensors = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in (WEIGHTS, BIAS)}
        outputs = {output.name: output for output in model.graph.output}
        concepts, thresholds = tuple(properties["concepts"]), tuple(properties["thresholds"])
        head = None
        if PROBABILITIES in outputs:
            weights, bias = numpy_helper.to_array(tensors[WEIGHTS]), numpy_helper.to_array(tensors[BIAS])
            head = Head(task=task, concepts=concepts, weights=weights, bias=bias, thresholds=thresholds)
        return ModelFile(
            task=task,
            # Files of earlier versions have none.
            signature=read_signature(properties["signature"]) if "signature" in properties else make_signature(model),
            embedding_digest=properties["embedding_digest"],
            embedding_dimension=outputs[EMBEDDING].type.tensor_type.shape.dim[1].dim_value,
            concepts=concepts,
            thresholds=thresholds,
            head=head,
        )
    except (KeyError, ValueError, DecodeError) as error:
        raise ExportError(f"{path.name} is not a model file of this platform: {error!r}") from error
