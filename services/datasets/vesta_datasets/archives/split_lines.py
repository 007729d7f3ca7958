"""Lines of text by split, in temporary files until an archive is finished."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO


class SplitLines:
    """Lines of the splits of an archive that is written. On exit, the files are deleted.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> "SplitLines":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def splits(self) -> list[str]:
        """The splits with lines, sorted."""
        return sorted(self._files)

    def add(self, split: str, line: str) -> None:
        """Adds a line."""
        if split not in self._files:
            file = self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - closed on exit
            self._files[split] = file
        self._files[split].write(f"{line}\n".encode())

    def copy_to(self, split: str, target: IO[bytes]) -> None:
        """Writes the lines of a split."""
        self._files[split].seek(0)
        shutil.copyfileobj(self._files[split], target)
