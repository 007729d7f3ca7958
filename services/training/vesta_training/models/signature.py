"""What a model file declares of its input and outputs, for those who run it without the code that trained it."""

from typing import Any

import onnx
from google.protobuf import json_format
from vesta_common.media.model_signatures import SQUARE_INPUT
from vesta_contracts.training.v1 import ModelInput, ModelOutput, ModelSignature, ObjectSelection


def make_signature(
    model: onnx.ModelProto, declared: ModelInput = SQUARE_INPUT, selection: ObjectSelection | None = None
) -> ModelSignature:
    """Returns the signature of a model.

    Args:
        declared: its input. The graph may accept other sizes too.
        selection: how the graph reduces candidates to objects, if it finds objects.
    """
    outputs = [
        ModelOutput(name=output.name, dimensions=[size.dim_value for size in output.type.tensor_type.shape.dim[1:]])
        for output in model.graph.output
    ]
    return ModelSignature(input=declared, outputs=outputs, object_selection=selection)


def signature_json(signature: ModelSignature) -> dict[str, Any]:
    """Returns a signature as a JSON value, for the metadata of a model file."""
    return json_format.MessageToDict(signature, preserving_proto_field_name=True)


def read_signature(value: dict[str, Any]) -> ModelSignature:
    """Returns a signature from the metadata of a model file.

    Raises:
        ValueError: it is not a signature.
    """
    try:
        return json_format.ParseDict(value, ModelSignature())
    except json_format.ParseError as error:
        raise ValueError(f"the signature is invalid: {error}") from error
