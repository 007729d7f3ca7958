"""Exports model files: backbones, cached by their digest, and backbones with heads. Each file is verified after the export."""

import fcntl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from vesta_training.atomic_files import is_whole
from vesta_training.errors import ExportError
from vesta_training.example import Array, Pixels
from vesta_training.features.backbone import EMBEDDING_DIMENSION, Backbone, load_network
from vesta_training.features.onnx_graph import STRIDES, embedding_graph
from vesta_training.features.runtime import ModelRuntime
from vesta_training.heads.linear_head import Head
from vesta_training.models.model_file import PROBABILITIES, append_head, write_model

if TYPE_CHECKING:
    import torch

# The summation order of float32 causes differences of about 4e-6, on photographs and on noise. Errors cause far larger ones.
DIFFERENCE_MAX = 1e-4
PROBE_SEED = 20_200_316


@dataclass(frozen=True, slots=True)
class Export:
    """An exported model file: its SHA-256, its size, and its maximum difference from the original model."""

    path: Path
    digest: str
    size_bytes: int
    difference_max: float


def export_backbone(backbone: Backbone, folder: Path) -> Path:
    """Returns the model file of the backbone, without a head, in `folder`. Exports it if it does not exist.

    Concurrent processes wait for the first one, so that the file is exported once. The file name contains its SHA-256; a damaged file
    is exported again.

    Raises:
        WeightsError: see `load_network`.
        ExportError: the embeddings of the file differ from those of torch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{backbone.digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in folder.glob(f"{backbone.digest}.*.onnx"):
            if is_whole(path, path.name.split(".")[1]):
                return path
        export = export_network(
            load_network(backbone), backbone.input_size_px, backbone.digest, folder / f"{backbone.digest}.onnx"
        )
        return export.path.rename(folder / f"{backbone.digest}.{export.digest}.onnx")


def export_network(network: "torch.nn.Module", input_size_px: int, embedding_digest: str, path: Path) -> Export:
    """Exports a torch network as a model file without a head, and verifies its embeddings against torch."""
    graph = embedding_graph(network, input_size_px, EMBEDDING_DIMENSION)
    onnx.checker.check_model(graph, full_check=True)
    draft = path.with_suffix(".draft")
    digest = write_model(graph, None, embedding_digest, draft)
    probe = probe_pixels()
    difference = _difference(ModelRuntime(draft).embed(probe), torch_embeddings(network, input_size_px, probe))
    draft.replace(path)
    return Export(path=path, digest=digest, size_bytes=path.stat().st_size, difference_max=difference)


def export_model(backbone_path: Path, head: Head | None, embedding_digest: str, path: Path) -> Export:
    """Adds a head to an exported backbone, and verifies the predictions of the file against the head.

    Raises:
        ExportError: the predictions differ.
    """
    model = onnx.load(backbone_path)
    if head is not None:
        model = append_head(model, head)
    digest = write_model(model, head, embedding_digest, path)
    probe = probe_pixels()
    exported = ModelRuntime(path)
    embeddings = ModelRuntime(backbone_path).embed(probe)
    difference = _difference(exported.embed(probe), embeddings)
    if head is not None:
        difference = max(difference, _difference(exported.run(probe, PROBABILITIES), head.probabilities(embeddings)))
    return Export(path=path, digest=digest, size_bytes=path.stat().st_size, difference_max=difference)


def torch_embeddings(network: "torch.nn.Module", input_size_px: int, pixels: Pixels) -> Array:
    """Computes embeddings with torch, as the reference for the graph."""
    import torch

    with torch.inference_mode():
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        size = (input_size_px, input_size_px)
        images = torch.nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
        features = network.cpu().extract_features(images / 127.5 - 1).mean((2, 3))  # type: ignore[operator]
        embeddings: Array = torch.nn.functional.normalize(features).numpy()
    return embeddings


def torch_maps(
    network: "torch.nn.Module", side_px: int, pixels: Pixels, strides: Sequence[int] = STRIDES
) -> list["torch.Tensor"]:
    """Computes the maps of a backbone by stride with torch, as the reference for the graph."""
    import torch

    from vesta_training.features.torch_maps import BackboneMaps  # imports torch

    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    size = (side_px, side_px)
    images = torch.nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
    maps: list[torch.Tensor] = BackboneMaps(network.cpu(), strides)(images)
    return maps


def probe_pixels() -> Pixels:
    """Returns test images `(4, 256, 256, 3)`: black, noise, and two with shapes of many sizes."""
    generator = np.random.default_rng(PROBE_SEED)
    across, down = np.meshgrid(np.linspace(0, 1, 256), np.linspace(0, 1, 256))
    waves = [127.5 + 127.5 * np.sin(40 * across * down + phase) for phase in (0, 1, 2)]
    blocks = np.kron(generator.integers(0, 256, (8, 8, 3)), np.ones((32, 32, 1)))
    noise = generator.integers(0, 256, (256, 256, 3))
    return np.stack([np.zeros((256, 256, 3)), noise, np.stack(waves, axis=2), blocks]).astype(np.uint8)


def _difference(actual: Array, expected: Array) -> float:
    difference = float(np.abs(actual - expected).max())
    if not difference <= DIFFERENCE_MAX:
        raise ExportError(
            f"the outputs of the exported file differ by {difference:.2e} from those of the "
            f"model, the maximum is {DIFFERENCE_MAX}"
        )
    return difference
