"""The contents of the bundle next to `vesta-install`."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

BUNDLE = Path(sys.argv[0]).resolve().parent
LAYOUT = BUNDLE / "images"
CHART = BUNDLE / "chart" / "vesta"
_CHUNK = 1 << 20
_REFERENCE = "org.opencontainers.image.ref.name"


class Failure(Exception):
    """The installation cannot continue; the message has the cause and suggests a fix."""


def verify() -> int:
    """Verifies the checksums of all files of the bundle; returns their number."""
    sums = BUNDLE / "SHA256SUMS"
    if not sums.is_file():
        raise Failure(f"{sums} is missing: unpack the whole archive, and run its vesta-install")
    listed = [line.split("  ", 1) for line in sums.read_text().splitlines()]
    wrong = [name for digest, name in listed if digest_of(BUNDLE / name) != digest]
    if wrong:
        raise Failure(
            f"{len(wrong)} of {len(listed)} files are missing or do not match their checksums, "
            f"the first is {wrong[0]}. The archive is damaged: compare its SHA-256, and copy and "
            "unpack it again"
        )
    return len(listed)


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file; empty if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


def images() -> list[tuple[str, dict[str, Any]]]:
    """Returns reference and descriptor of each image."""
    index = json.loads((LAYOUT / "index.json").read_text())
    return sorted((entry["annotations"][_REFERENCE], entry) for entry in index["manifests"])


def blob(digest: str) -> Path:
    """Returns the file of a blob."""
    return LAYOUT / "blobs" / digest.replace(":", "/")
