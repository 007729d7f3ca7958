"""Atomic writes of files that several processes share: a reader never sees a partial file, also with concurrent writers."""

import hashlib
import os
import tempfile
from pathlib import Path

import structlog

log = structlog.get_logger()


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file atomically, and replaces an existing one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def keep_copy(path: Path, data: bytes) -> None:
    """Writes a cached copy of an object. Errors are logged and ignored."""
    try:
        write_whole(path, data)
    except OSError as error:
        log.warning("copy_failed", path=str(path), error=str(error))


def is_whole(path: Path, sha256: str) -> bool:
    """Whether the file exists and matches the SHA-256. After a power failure a file can have the right size and wrong content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False
