"""Files that other processes may look for: each appears whole or not at all, whoever else writes the same one just then."""

import hashlib
import os
import tempfile
from pathlib import Path

import structlog

log = structlog.get_logger()


def write_whole(path: Path, data: bytes) -> None:
    """Puts a file where it belongs, in place of one that is there."""
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
    """Writes a copy of what lies elsewhere too; where it cannot be written, the work goes on without it."""
    try:
        write_whole(path, data)
    except OSError as error:
        log.warning("copy_not_kept", path=str(path), error=str(error))


def is_whole(path: Path, sha256: str) -> bool:
    """Whether the file is there with the content of this SHA-256; a power cut may leave one that has its size alone."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False
