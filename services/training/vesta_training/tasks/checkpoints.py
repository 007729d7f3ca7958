"""The checkpoint of a tuning: a file in the run's own folder, and a copy elsewhere, since that folder may be lost with its machine."""

from pathlib import Path
from typing import Any, Protocol

import structlog

FORMAT = 2

log = structlog.get_logger()


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


class Resumable(Protocol):
    """Where a tuning leaves its state after every epoch."""

    def find(self, fingerprint: str) -> dict[str, Any] | None:
        """The state of an earlier attempt at the very same training, if there is one that can be read."""
        ...

    def keep(self, fingerprint: str, state: dict[str, Any]) -> None:
        """Replaces the state.

        Args:
            fingerprint: of everything that decides the outcome.
            state: plain values and tensors on the CPU.
        """
        ...


class CheckpointFile:
    """A file, and what keeps copies of it."""

    def __init__(self, path: Path, checkpoints: Checkpoints = HERE_ALONE) -> None:
        self._path = path
        self._checkpoints = checkpoints

    def find(self, fingerprint: str) -> dict[str, Any] | None:
        """What the file says, or the copy elsewhere where there is no file."""
        import torch

        self._checkpoints.fetch(self._path)
        if not self._path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - torch raises many kinds at a damaged file, which costs the epochs before
            log.warning("checkpoint_unreadable", path=str(self._path), error=repr(error))
            return None
        same = (state.get("format"), state.get("fingerprint")) == (FORMAT, fingerprint)
        return state if same else None

    def keep(self, fingerprint: str, state: dict[str, Any]) -> None:
        """Replaces the file at once."""
        import torch

        unfinished = self._path.with_suffix(".unfinished")
        torch.save({"format": FORMAT, "fingerprint": fingerprint, **state}, unfinished)
        unfinished.replace(self._path)
        self._checkpoints.kept(self._path)


class _Nowhere:
    def find(self, fingerprint: str) -> dict[str, Any] | None:  # noqa: ARG002
        """None is kept."""
        return None

    def keep(self, fingerprint: str, state: dict[str, Any]) -> None:
        """The first process keeps it for all."""


NOWHERE: Resumable = _Nowhere()
