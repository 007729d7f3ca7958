"""What a run's work is told and tells, through the object store alone: a description, checkpoints, progress, a result.

runs/<work>/description.json      what to do; written before the work starts
runs/<work>/progress              a TrainingProgress, replaced once a second at most
runs/<work>/result.json           the end of it, success or failure; the first one stays valid
runs/<work>/finetune.checkpoint   to go on from, wherever the work is started again
"""

import base64
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vesta_common.errors import FailedPrecondition, Internal, NotFound, VestaError
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import TrainingProgress

from vesta_training.runs.job import Job, RunResult

FOLDER = "runs"
CRASHED = "TRAINING_CRASHED"
_MESSAGES = {"version", "comparison", "random_labels", "held_out_accuracy"}


class Exchange:
    """The objects of one run's work.

    All methods raise what `ObjectStore` does.

    Args:
        work: its name; see `executors.work_name`.
    """

    def __init__(self, objects: ObjectStore, work: str) -> None:
        self._objects = objects
        self._prefix = f"{FOLDER}/{work}/"

    def describe(self, job: Job) -> None:
        """Writes what to do, and takes back what an earlier start of the same work has told."""
        for name in ("result.json", "progress"):
            self._objects.delete(self._prefix + name)
        self._put("description.json", json.dumps(asdict(job)).encode())

    def description(self) -> Job:
        """What to do. Raises NotFound where the run has ended."""
        content = json.loads(self._objects.get(f"{self._prefix}description.json"))
        return Job(**{**content, "concepts": tuple(content["concepts"])})

    def tell(self, progress: TrainingProgress) -> None:
        """Replaces the progress."""
        self._put("progress", progress.SerializeToString())

    def find_progress(self) -> TrainingProgress | None:
        """How far the work is; None where it has not said yet."""
        content = self._find("progress")
        return TrainingProgress.FromString(content) if content is not None else None

    def succeed(self, outcome: RunResult) -> None:
        """Ends the work with what came out."""
        self._put("result.json", json.dumps({"outcome": _portable(outcome)}).encode())

    def fail(self, error: Exception) -> None:
        """Ends the work with an error that another start would meet again."""
        self._put("result.json", json.dumps({"error": told_of(error)}).encode())

    def find_result(self) -> RunResult | VestaError | None:
        """How the work ended; None while it has not."""
        content = self._find("result.json")
        if content is None:
            return None
        told = json.loads(content)
        if "outcome" in told:
            return _unpacked(told["outcome"])
        return error_told(told["error"])

    def fetch_checkpoint(self, path: Path) -> None:
        """Brings the checkpoint of an earlier start into a file; leaves none where there is none."""
        try:
            self._objects.download(self._prefix + path.name, path)
        except NotFound:
            return

    def keep_checkpoint(self, path: Path) -> None:
        """Stores a checkpoint, for the work to go on elsewhere."""
        self._objects.put_named(self._prefix + path.name, path)

    def remove(self) -> None:
        """Removes all of it: the run has ended."""
        for key in list(self._objects.list_keys(self._prefix)):
            self._objects.delete(key)

    def _put(self, name: str, content: bytes) -> None:
        self._objects.put_named(self._prefix + name, content)

    def _find(self, name: str) -> bytes | None:
        try:
            return self._objects.get(self._prefix + name)
        except NotFound:
            return None


def told_of(error: Exception) -> dict[str, Any]:
    """An error in JSON values; one that nobody foresaw is our own mistake."""
    return {
        "message": str(error) if isinstance(error, VestaError) else f"{type(error).__name__}: {error}",
        "reason": error.reason if isinstance(error, VestaError) else CRASHED,
        "refused": isinstance(error, VestaError) and not isinstance(error, Internal),
    }


def error_told(told: dict[str, Any]) -> VestaError:
    """The error that `told_of` told of."""
    kind = FailedPrecondition if told["refused"] else Internal
    return kind(told["message"], reason=told["reason"])


def list_work(objects: ObjectStore) -> set[str]:
    """The names of all work that has objects."""
    return {key.split("/")[1] for key in objects.list_keys(f"{FOLDER}/")}


def _portable(outcome: RunResult) -> dict[str, Any]:
    """JSON values; messages in base64."""

    def packed(value: Any) -> Any:
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        return [packed(one) for one in value] if isinstance(value, tuple) else value

    return {field.name: packed(getattr(outcome, field.name)) for field in fields(outcome)}


def _unpacked(told: dict[str, Any]) -> RunResult:
    messages: dict[str, Any] = {
        name: base64.b64decode(value) if name in _MESSAGES and value is not None else value
        for name, value in told.items()
    }
    messages["curve"] = tuple(base64.b64decode(point) for point in told["curve"])
    return RunResult(**messages)
