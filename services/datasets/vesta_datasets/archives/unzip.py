"""Unpacks zip archives within limits, and hashes their files.

This module runs in a sandboxed child process that can access only the archive's folder (`vesta_common.sandbox`).
"""

import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vesta_datasets.archives.layout import UnreadableArchiveError, sha256_in

ENTRIES_MAX = 2_000_000
UNPACKED_BYTES_MAX = 64 * 1024**3
RATIO_MAX = 200
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, LookupError, OSError, RuntimeError, UnicodeError),
)
"""The exceptions that `zipfile` raises for damaged archives."""


def unpack_zip(folder: Path, names: tuple[str, str]) -> None:
    """Unpacks an archive. Rejects symbolic links and paths that lead outside of the target folder.

    Args:
        names: the archive, and the folder to create for its files, both in `folder`.

    Raises:
        UnreadableArchiveError: the file is not a zip archive, is a zip bomb, or has entries that lead outside of it.
    """
    archive, target = (folder / name for name in names)
    target.mkdir()
    with _opened(archive, target) as opened:
        opened.extractall(target)


def hash_zip(folder: Path, name: str) -> dict[str, str]:
    """Returns the SHA-256 of the files of an archive, hexadecimal, by the paths that `unpack_zip` gives them. Unpacks nothing.

    Args:
        name: of the archive, in `folder`.

    Raises:
        UnreadableArchiveError: as `unpack_zip`.
    """
    with _opened(folder / name, folder / "files") as opened:
        digests = {}
        for entry in opened.infolist():
            if not entry.is_dir():
                with opened.open(entry) as file:
                    digests[_path_of(entry)] = sha256_in(file)
        return digests


@contextmanager
def _opened(archive: Path, target: Path) -> Iterator[zipfile.ZipFile]:
    """Opens an archive, and checks its size and paths.

    Args:
        target: the folder that the paths may not leave.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            size = sum(entry.file_size for entry in entries)
            packed = sum(entry.compress_size for entry in entries) or 1
            if len(entries) > ENTRIES_MAX or size > UNPACKED_BYTES_MAX or size / packed > RATIO_MAX:
                raise UnreadableArchiveError(
                    f"the unpacked archive would have {size} bytes in {len(entries)} files, which exceeds "
                    "the limits; split it into smaller archives"
                )
            resolved = str(target.resolve())
            for entry in entries:
                path = os.path.normpath(f"{resolved}/{entry.filename}")  # the new folder has no links
                is_inside = path == resolved or path.startswith(f"{resolved}/")
                if not is_inside or entry.filename.startswith("/") or stat.S_ISLNK(entry.external_attr >> 16):
                    raise UnreadableArchiveError(f"the archive entry {entry.filename!r} is outside of the archive")
            yield opened
    except _DAMAGED as error:
        raise UnreadableArchiveError(f"the archive cannot be unpacked: {error}") from error


def _path_of(entry: zipfile.ZipInfo) -> str:
    return "/".join(part for part in entry.filename.split("/") if part not in ("", ".", ".."))
