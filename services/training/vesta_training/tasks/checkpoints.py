"""Checkpoints of fine-tuning: a file in the folder of the run, with an optional copy in case the machine is lost."""

from pathlib import Path
from typing import Any, Protocol

import structlog

FORMAT = 2

log = structlog.get_logger()


class Checkpoints(Protocol):
    """Stores copies of checkpoint files, by file name."""

    def fetch(self, path: Path) -> None:
        """Downloads the last stored copy to `path`, if there is one and `path` does not exist."""
        ...

    def store(self, path: Path) -> None:
        """Stores a copy of a checkpoint, unless the last copy is recent."""
        ...


class _NoCopies:
    def fetch(self, path: Path) -> None:
        """Does nothing: there are no copies."""

    def store(self, path: Path) -> None:
        """Does nothing: no copies are stored."""


NO_COPIES: Checkpoints = _NoCopies()
"""Stores no copies; the checkpoint is only in the folder of the run."""


class Resumable(Protocol):
    """Storage of the fine-tuning state, which is saved after every epoch."""

    def find(self, fingerprint: str) -> dict[str, Any] | None:
        """Returns the state of an earlier attempt with the same fingerprint; None if there is none or it is not readable."""
        ...

    def keep(self, fingerprint: str, state: dict[str, Any]) -> None:
        """Replaces the state.

        Args:
            fingerprint: hash of all inputs of the training.
            state: plain values and tensors on the CPU.
        """
        ...


class CheckpointFile:
    """A checkpoint file with copies."""

    def __init__(self, path: Path, checkpoints: Checkpoints = NO_COPIES) -> None:
        self._path = path
        self._checkpoints = checkpoints

    def find(self, fingerprint: str) -> dict[str, Any] | None:
        """Returns the state from the file, or from its copy if the file does not exist."""
        import torch

        self._checkpoints.fetch(self._path)
        if not self._path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - torch raises many types for damaged files; training then starts from the beginning
            log.warning("checkpoint_unreadable", path=str(self._path), error=repr(error))
            return None
        same = (state.get("format"), state.get("fingerprint")) == (FORMAT, fingerprint)
        return state if same else None

    def keep(self, fingerprint: str, state: dict[str, Any]) -> None:
        """Replaces the file atomically."""
        import torch

        unfinished = self._path.with_suffix(".unfinished")
        torch.save({"format": FORMAT, "fingerprint": fingerprint, **state}, unfinished)
        unfinished.replace(self._path)
        self._checkpoints.store(self._path)


class _NoCheckpoints:
    def find(self, fingerprint: str) -> dict[str, Any] | None:  # noqa: ARG002
        """Returns None: nothing is stored."""
        return None

    def keep(self, fingerprint: str, state: dict[str, Any]) -> None:
        """Does nothing: the first process stores the state."""


NO_CHECKPOINTS: Resumable = _NoCheckpoints()
