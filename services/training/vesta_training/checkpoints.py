"""Where a tuning's checkpoints are kept beside the run's own folder, which may be lost with its machine."""

from pathlib import Path
from typing import Protocol


class Checkpoints(Protocol):
    """Keeps checkpoint files by their names."""

    def fetch(self, path: Path) -> None:
        """Brings the last one that was kept, where there is none at `path`; leaves none where none was kept."""
        ...

    def kept(self, path: Path) -> None:
        """Told that a checkpoint was written; may keep it."""
        ...


class _HereAlone:
    def fetch(self, path: Path) -> None:
        """There is none elsewhere."""

    def kept(self, path: Path) -> None:
        """The file is enough."""


HERE_ALONE: Checkpoints = _HereAlone()
"""Keeps none: the run's folder is enough."""
