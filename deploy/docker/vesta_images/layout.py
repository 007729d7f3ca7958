"""Images as an OCI image layout on disk (image-spec v1.1, image-layout.md): a folder in which images share layers."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAME, _CONTAINERD_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"


@dataclass(frozen=True)
class Stored:
    """An image in a layout.

    Attributes:
        compressed_bytes: the download size of layers and configuration.
        layers: their digests, from the base up.
    """

    reference: str
    digest: str
    compressed_bytes: int
    layers: tuple[str, ...]


def add(builder: str, references: Sequence[str], folder: Path) -> None:
    """Copies images from the store of the builder into the layout.

    Raises:
        RuntimeError: an image cannot be copied; the message has the cause.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for reference in references:
        if builder == "buildah":
            command = ["buildah", "push", "--quiet", reference, f"oci:{folder}:{reference}"]
        else:
            command = ["skopeo", "copy", "--quiet", f"docker-daemon:{reference}", f"oci:{folder}:{reference}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{reference} cannot be copied to {folder}: {done.stderr.strip()}")
    tidy(folder)


def tidy(folder: Path) -> None:
    """Adds the image names for containerd, and removes images whose name was given to another one, with their layers."""
    index = _index(folder)
    index["manifests"] = [entry for entry in index["manifests"] if _NAME in entry.get("annotations", ())]
    for manifest in index["manifests"]:
        # containerd reads the full name of an image from this annotation, and uses the other one only with `--base-name`.
        manifest["annotations"][_CONTAINERD_NAME] = manifest["annotations"][_NAME]
    (folder / "index.json").write_text(json.dumps(index))
    _remove_unused(folder)


def images(folder: Path) -> list[Stored]:
    """Returns the images of a layout, by name."""
    return sorted((_stored(folder, entry) for entry in _index(folder)["manifests"]), key=lambda image: image.reference)


def _stored(folder: Path, entry: Mapping[str, Any]) -> Stored:
    manifest = read(folder, entry["digest"])
    size = manifest["config"]["size"] + sum(layer["size"] for layer in manifest["layers"])
    layers = tuple(layer["digest"] for layer in manifest["layers"])
    return Stored(entry["annotations"][_NAME], entry["digest"], size, layers)


def _index(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "index.json").read_text()))


def read(folder: Path, digest: str) -> dict[str, Any]:
    """Reads a JSON blob."""
    return dict(json.loads((folder / "blobs" / digest.replace(":", "/")).read_text()))


def _remove_unused(folder: Path) -> None:
    """Removes blobs that no image uses: the layers of replaced images."""
    used = {digest.partition(":")[2] for digest in _named(folder)}
    for blob in (folder / "blobs" / "sha256").iterdir():
        if blob.name not in used:
            blob.unlink()


def _named(folder: Path) -> Iterator[str]:
    for entry in _index(folder)["manifests"]:
        manifest = read(folder, entry["digest"])
        yield from (entry["digest"], manifest["config"]["digest"])
        yield from (layer["digest"] for layer in manifest["layers"])
