"""The input and outputs that model versions declare, with defaults for versions that were registered before they declared them."""

from typing import Final

from vesta_contracts.training.v1 import ModelInput, ModelOutput, ModelVersion

from vesta_common.media.model_input import SQUARE, InputFormat, Resize

SQUARE_INPUT: Final = ModelInput(
    height_px=SQUARE.height_px, width_px=SQUARE.width_px, resize=ModelInput.STRETCH, colour_order=ModelInput.RGB
)
"""`SQUARE` as a message."""
PROBABILITIES, EMBEDDING, OBJECTS, MASKS = "probabilities", "embedding", "objects", "masks"
SEGMENTATION, PRESENCE, OVERLAP = "segmentation", "presence", "overlap"
"""The names of outputs; `vesta.training.v1.ModelOutput` describes their contents."""
_RESIZES: Final[dict[ModelInput.Resize.ValueType, Resize]] = {
    ModelInput.LETTERBOX: "letterbox",
    ModelInput.CROP: "crop",
}


def input_format(version: ModelVersion) -> InputFormat:
    """Returns the input of a model version."""
    if not version.signature.HasField("input"):
        return SQUARE
    declared = version.signature.input
    return InputFormat(
        declared.height_px,
        declared.width_px,
        _RESIZES.get(declared.resize, "stretch"),
        "BGR" if declared.colour_order == ModelInput.BGR else "RGB",
    )


def model_outputs(version: ModelVersion) -> list[ModelOutput]:
    """Returns the outputs of a model version."""
    if version.signature.outputs:
        return list(version.signature.outputs)
    sizes = {PROBABILITIES: len(version.concepts), EMBEDDING: version.embedding_dimension}
    return [ModelOutput(name=name, dimensions=[size]) for name, size in sizes.items() if size]
