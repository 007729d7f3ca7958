"""The photographs of the demo without data: clothing, downloaded once, or scanned digits where it cannot be reached."""

import hashlib
import http.client
import shutil
import tarfile
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from photographs import Photographs, read_folder, write_digits

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
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Download:
    """An archive of photographs: its URL, and the digest of its files (see `SAMPLES_DIGEST`)."""

    url: str = SAMPLES_URL
    digest: str = SAMPLES_DIGEST


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
