"""Images with one layer for static programs, which require no builder and no registry."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_archive(path: Path, tag: str, files: Mapping[str, Path], command: Sequence[str]) -> None:
    """Writes an image in the format of `docker save`.

    Args:
        path: of the archive.
        files: the files of the image, by name in its root folder.
        command: the command of its containers.
    """
    layer = _tar({name: (file.read_bytes(), 0o755) for name, file in files.items()})
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": list(command), "Env": ["PATH=/"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    path.write_bytes(_tar({name: (config, 0o644), "manifest.json": (manifest, 0o644), "layer.tar": (layer, 0o644)}))


def _tar(members: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Returns an archive of members by name: content and mode."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, (content, mode) in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()
