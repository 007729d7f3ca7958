"""Labelled photographs for the demo: a folder of the user, photographs of clothing, or scanned digits.

Run as a program, it writes the digits into a folder.
"""

import argparse
import hashlib
import http.client
import re
import shutil
import tarfile
import urllib.request
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SAMPLES_URL = (
    "https://codeload.github.com/alexeygrigorev/clothing-dataset-small/tar.gz/11961516512414bf9f6c150a832cfd21b54a6b54"
)
SAMPLES_LICENCE = "CC0 1.0"
# SHA-256 over the lines "SHA-256 of a photograph, two blanks, its path", in order of path: the packing of the archive may
# change, its photographs may not.
SAMPLES_DIGEST = "f8667cfe4a397f1be854d7d6c56118e4eaf6e9654ac37940e443dec3b4e55721"
ARCHIVE_BYTES_MAX = 512 * 1024 * 1024
UNPACKED_BYTES_MAX = 2 * ARCHIVE_BYTES_MAX
MEMBERS_MAX = 50_000
REACH_TIMEOUT_SECONDS = 10
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
SPLITS = {
    **dict.fromkeys(("train", "training", "validation", "valid", "val"), "train"),
    **dict.fromkeys(("test", "testing", "evaluation", "eval"), "test"),
}
DIGIT_SIDE_PX = 64
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Photograph:
    """An image file with its true class."""

    path: Path
    label: str


@dataclass(frozen=True)
class Photographs:
    """A labelled data set.

    Attributes:
        name: its name, a valid id.
        pool: the images that annotators can label.
        test: the held-out images; empty if the platform assigns the splits.
    """

    name: str
    pool: list[Photograph]
    test: list[Photograph]

    @property
    def labels(self) -> list[str]:
        """The classes, in order."""
        return sorted({photograph.label for photograph in [*self.pool, *self.test]})


def read_folder(folder: Path) -> Photographs:
    """Reads a folder with one sub-folder per class, or with such folders below train, validation and test, in either
    order.

    Ignores a folder that contains all others, and hidden files. Folders below a class belong to the class. If classes
    are below splits, images outside of a class have no label and are ignored.

    Raises:
        ValueError: there is no image, or there are fewer than two classes; the message describes the expected layout.
    """
    pool: list[Photograph] = []
    test: list[Photograph] = []
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    placed = [(path, path.relative_to(folder).parts[:-1]) for path in paths]
    visible = [(path, folders) for path, folders in placed if not any(map(_is_hidden, (*folders, path.name)))]
    unwrapped = _unwrapped(visible)
    side_of = _sides({name for _, folders in unwrapped for name in folders})
    under_sides = any(
        folders[0] in side_of and _side_and_label(folders, side_of, under_sides=True)[1] for _, folders in unwrapped
    )
    for path, folders in unwrapped:
        side, label = _side_and_label(folders, side_of, under_sides=under_sides)
        if label:
            (test if side == "test" else pool).append(Photograph(path, label))
    found = Photographs(
        "".join(c if c.isalnum() else "-" for c in folder.name.lower()).strip("-") or "images", pool, test
    )
    if len(found.labels) < 2 or not pool:
        raise ValueError(
            f"{folder} has {len(pool) + len(test)} images of {len(found.labels)} classes; "
            "expected: at least two sub-folders with images, one per class, optionally below "
            "train/ and test/"
        )
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _unwrapped(placed: list[tuple[Path, tuple[str, ...]]]) -> list[tuple[Path, tuple[str, ...]]]:
    """Removes leading folders that contain everything, as in many archives, and images that are in no folder."""
    placed = [(path, folders) for path, folders in placed if folders]
    while len({folders[0] for _, folders in placed}) == 1 and any(len(folders) > 1 for _, folders in placed):
        placed = [(path, folders[1:]) for path, folders in placed if folders[1:]]
    return placed


def _sides(names: set[str]) -> dict[str, str]:
    """Returns the folders that name a split: `train`, `Test_Set`, and `seg_train` if there is also `seg_test` or
    similar.
    """
    named: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in names:
        words = re.split(r"[_ -]", re.sub(r"[_ -]?set$", "", name.lower()))
        for index, word in enumerate(words):
            if word in SPLITS:
                named[(*words[:index], "*", *words[index + 1 :])][name] = SPLITS[word]
    certain = [found for pattern, found in named.items() if pattern == ("*",) or len(found) > 1]
    return {name: side for found in certain for name, side in found.items()}


def _side_and_label(folders: tuple[str, ...], side_of: dict[str, str], *, under_sides: bool = False) -> tuple[str, str]:
    """Returns train or test, and the class: the first folder that does not name a split; empty if there is none.

    Args:
        under_sides: whether classes are below splits; otherwise a single folder is a class, whatever its name.
    """
    if len(set(folders)) == 1:
        return "train", "" if under_sides else folders[0]
    label = next((name for name in folders if name not in side_of), "")
    return next((side_of[name] for name in folders if name in side_of), "train"), label


def find_samples(
    samples: Path, report: Callable[[str], None], url: str = SAMPLES_URL, digest: str = SAMPLES_DIGEST
) -> Photographs:
    """Returns the photographs of clothing, downloaded once into `samples`, or the digits of scikit-learn if they
    cannot be downloaded.

    Raises:
        ValueError: the download is not the pinned data set.
    """
    target = samples / "clothing"
    if not target.exists():
        try:
            _download(url, target, digest, report)
        except (OSError, http.client.HTTPException, tarfile.TarError, EOFError, zlib.error) as error:
            report(
                f"The clothing photographs cannot be reached ({error}); using scikit-learn's scanned digits instead."
            )
            return read_folder(write_digits(samples / "digits"))
    return read_folder(target)


def _download(url: str, target: Path, digest: str, report: Callable[[str], None]) -> None:
    """Downloads the archive, verifies its photographs, and then moves them to their place."""
    scratch = target.with_suffix(".partial")
    shutil.rmtree(scratch, ignore_errors=True)  # of an interrupted download
    scratch.mkdir(parents=True)
    archive = scratch / "archive.tar.gz"
    report(f"Downloading the clothing photographs ({SAMPLES_LICENCE}) …")
    size = 0
    with urllib.request.urlopen(url, timeout=REACH_TIMEOUT_SECONDS) as response, archive.open("wb") as file:
        while chunk := response.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > ARCHIVE_BYTES_MAX:
                raise ValueError(
                    f"{url} sends more than {ARCHIVE_BYTES_MAX} bytes; use your own folder with data=FOLDER"
                )
            file.write(chunk)
            if size // (20 * _CHUNK_BYTES) != (size - len(chunk)) // (20 * _CHUNK_BYTES):
                report(f"  {size // _CHUNK_BYTES} MiB")
    _unpack(archive, scratch)
    archive.unlink()
    (root,) = (path for path in scratch.iterdir() if path.is_dir())
    found = tree_digest(root)
    if found != digest:
        raise ValueError(
            f"{url} is not the pinned data set (its digest is {found}); use your own folder with data=FOLDER"
        )
    root.rename(target)
    scratch.rmdir()


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks files and folders of a tar archive, with the rules of `tarfile.data_filter`, which Python has only
    since 3.11.4.

    Raises:
        ValueError: a member is neither a file nor a folder, or is outside of `folder`, or members are too many or too
            large.
    """
    size = 0
    with tarfile.open(archive) as tar:
        for count, member in enumerate(tar, start=1):
            target = (folder / member.name).resolve()
            if not (member.isreg() or member.isdir()):
                raise ValueError(
                    f"the archive has the entry {member.name!r}, which is neither a file nor a folder; it "
                    "is not unpacked"
                )
            if not target.is_relative_to(folder.resolve()):
                raise ValueError(
                    f"the archive has the entry {member.name!r}, which is outside of the archive; it is not unpacked"
                )
            size += member.size
            if count > MEMBERS_MAX or size > UNPACKED_BYTES_MAX:
                raise ValueError(f"the archive unpacks to more than {MEMBERS_MAX} files or {UNPACKED_BYTES_MAX} bytes")
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None  # a file
            with content, target.open("xb") as file:
                shutil.copyfileobj(content, file, _CHUNK_BYTES)


def tree_digest(root: Path) -> str:
    """Returns the SHA-256 over the JPEG files of a folder, see `SAMPLES_DIGEST`."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.jpg"), key=lambda path: path.relative_to(root).as_posix()):
        name = path.relative_to(root).as_posix()
        total.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n".encode())
    return total.hexdigest()


def write_digits(target: Path, per_class_max: int | None = None) -> Path:
    """Writes the 1,797 scanned digits of scikit-learn, or the first of each, as PNG files, one folder per digit."""
    from sklearn.datasets import load_digits

    if not target.exists():
        scratch = target.with_suffix(".partial")
        digits = load_digits()
        for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            folder = scratch / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            if len(list(folder.iterdir())) == per_class_max:
                continue
            image = Image.fromarray((255 - pixels * 255 / 16).astype(np.uint8)).resize(
                (DIGIT_SIDE_PX, DIGIT_SIDE_PX), Image.Resampling.BICUBIC
            )
            image.save(folder / f"{index:04d}.png")
        scratch.rename(target)
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes digits into a new folder."""
    parser = argparse.ArgumentParser(
        description="Writes the scanned digits of scikit-learn as PNG files, one folder per digit."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-class", type=int, help="the maximum number per digit; all by default")
    options = parser.parse_args(arguments)
    if options.folder.exists():
        parser.error(f"{options.folder} already exists; delete it, or choose another folder")
    if options.per_class is not None and options.per_class < 1:
        parser.error("--per-class must be at least 1")
    write_digits(options.folder, options.per_class)


if __name__ == "__main__":
    main()
