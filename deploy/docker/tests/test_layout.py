"""The OCI image layout that images are copied into."""

import hashlib
import json
from pathlib import Path
from typing import Any

from vesta_images import layout

REFERENCE = "registry.example/vesta-datasets:1"


def _blob(folder: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (folder / "blobs" / "sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def _image(folder: Path, layer: bytes, annotations: dict[str, str]) -> dict[str, Any]:
    manifest = {"config": _blob(folder, b'{"layer": "%s"}' % layer), "layers": [_blob(folder, layer)]}
    return {**_blob(folder, json.dumps(manifest).encode()), "annotations": annotations}


def test_an_image_that_is_built_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    # buildah leaves the old image in the index, without its name.
    old = _image(tmp_path, b"old", {})
    new = _image(tmp_path, b"new", {"org.opencontainers.image.ref.name": REFERENCE})
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [old, new]}))
    layout.tidy(tmp_path)
    assert [image.reference for image in layout.images(tmp_path)] == [REFERENCE]
    assert len(list((tmp_path / "blobs" / "sha256").iterdir())) == 3, "the old image's files are left"
    (entry,) = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == REFERENCE
