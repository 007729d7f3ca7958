"""Weights are used only with the expected SHA-256 and licence; errors are clear."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from vesta_training.errors import WeightsError
from vesta_training.features import backbone as module
from vesta_training.features.backbone import Backbone, find_backbone, load_network
from vesta_training.recipes.choices import BackboneChoices


def no_weights_file(sha256: str) -> Path:
    raise LookupError(sha256)


def test_the_packaged_weights_are_the_ones_that_were_pinned(backbone: Backbone) -> None:
    assert backbone.weights_license == "Apache-2.0"
    assert backbone.weights_sha256 == hashlib.sha256(backbone.weights_path.read_bytes()).hexdigest()


def test_the_digest_names_weights_architecture_and_preprocessing(backbone: Backbone) -> None:
    assert backbone.digest != replace(backbone, weights_sha256="0" * 64).digest
    assert backbone.digest != replace(backbone, input_size_px=240).digest


def test_a_file_of_the_same_weights_embeds_into_the_same_space(backbone: Backbone) -> None:
    """The digest of the embedding space depends on the content of the weights file and not on its source."""
    choices = BackboneChoices(weights=backbone.weights_sha256, weights_license="MIT")
    found = find_backbone(choices, lambda sha256: backbone.weights_path)

    assert found.digest == backbone.digest
    assert found.weights_license == "MIT"


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (BackboneChoices(architecture="resnet50"), "known architectures: efficientnet-lite0, "),
        (BackboneChoices(architecture="efficientnet-lite2"), "no weights are packaged for efficientnet-lite2"),
        (BackboneChoices(weights="a" * 64), "is not in the object store; upload it first"),
    ],
)
def test_missing_weights_are_rejected_with_a_suggestion(choices: BackboneChoices, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        find_backbone(choices, no_weights_file)


def test_another_file_under_the_same_name_is_rejected(backbone: Backbone, tmp_path: Path) -> None:
    other = tmp_path / "weights.pth"
    other.write_bytes(backbone.weights_path.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightsError, match="has SHA-256"):
        load_network(replace(backbone, weights_path=other))


def test_a_file_without_weights_is_rejected(backbone: Backbone, tmp_path: Path) -> None:
    other = tmp_path / "weights.pth"
    other.write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="not a torch weights file"):
        load_network(replace(backbone, weights_path=other, weights_sha256=hashlib.sha256(b"not weights").hexdigest()))


@pytest.mark.parametrize("tensors", [{"_conv_stem.weight": torch.zeros(2, 2)}, {"unknown": torch.zeros(1)}])
def test_weights_of_another_network_are_rejected(
    backbone: Backbone, tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    other = tmp_path / "weights.pth"
    torch.save(tensors, other)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match="does not match efficientnet-lite0"):
        load_network(replace(backbone, weights_path=other, weights_sha256=digest))


def test_a_file_beyond_the_limit_is_not_read(backbone: Backbone, tmp_path: Path) -> None:
    sparse = tmp_path / "weights.pth"
    with sparse.open("wb") as file:
        file.truncate(module.WEIGHTS_BYTES_MAX + 1)
    with pytest.raises(WeightsError, match="the maximum is"):
        load_network(replace(backbone, weights_path=sparse))


def test_the_network_distinguishes_an_image_from_noise(backbone: Backbone) -> None:
    """The weights are assigned to the right layers; otherwise all images would have similar embeddings."""
    network = load_network(backbone)
    with torch.inference_mode():
        images = torch.from_numpy(np.random.default_rng(0).normal(0, 0.5, (2, 3, 224, 224)).astype(np.float32))
        images[0] = torch.linspace(-1, 1, 224)
        features = network.extract_features(images).mean((2, 3))  # type: ignore[operator]

    assert features.shape == (2, 1280)
    assert torch.nn.functional.cosine_similarity(features[0], features[1], dim=0) < 0.8
