"""Unpacks zip archives within limits.

This module runs in a sandboxed child process that can access only the archive's folder (`vesta_common.sandbox`).
"""

import lzma
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from vesta_datasets.archives.layout import UnreadableArchiveError

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
            opened.extractall(target)
    except _DAMAGED as error:
        raise UnreadableArchiveError(f"the archive cannot be unpacked: {error}") from error
