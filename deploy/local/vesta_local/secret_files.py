"""Files that only their owner can read."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, atomically."""
    _draft(path, text).replace(path)


def keep_first(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, unless it exists. Of concurrent calls, the first one succeeds."""
    if path.exists():
        return
    draft = _draft(path, text)
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def _draft(path: Path, text: str) -> Path:
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # readable by the owner only
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return Path(draft)
