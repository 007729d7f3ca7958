"""The communication between the service and the work of a run, through objects in the object store.

runs/<work>/description.json      the job; written before the work starts
runs/<work>/progress              a TrainingProgress, replaced at most once per second
runs/<work>/result.json           the result, success or failure; a restarted pod does not replace it
runs/<work>/finetune.checkpoint   the checkpoint from which a restart resumes
"""

import base64
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vesta_common.errors import FailedPrecondition, Internal, NotFound, VestaError
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import TrainingProgress

from vesta_training.runs.job import CurveResult, Job, RunResult

FOLDER = "runs"
CRASHED = "TRAINING_CRASHED"
_OUTCOME, _CURVE = "outcome", "curve"
_MESSAGES = {"version", "comparison", "held_out_accuracy", "random_labels"}


class Exchange:
    """The objects of the work of a run.

    All methods raise the errors of `ObjectStore`.

    Args:
        work: name of the work; see `executors.work_name`.
    """

    def __init__(self, objects: ObjectStore, work: str) -> None:
        self._objects = objects
        self._prefix = f"{FOLDER}/{work}/"

    def put_job(self, job: Job) -> None:
        """Stores the job, and deletes the progress and the result of an earlier start of the same work."""
        for name in ("result.json", "progress"):
            self._objects.delete(self._prefix + name)
        self._put("description.json", json.dumps(asdict(job)).encode())

    def get_job(self) -> Job:
        """Returns the job. Raises NotFound if the run is finished."""
        content = json.loads(self._objects.get(f"{self._prefix}description.json"))
        if "test_dealt" in content:  # the name of the field in jobs of the previous version
            content["test_split_is_random"] = content.pop("test_dealt")
        content.pop("control_curve", None)  # of jobs of the previous version
        return Job(**{**content, "concepts": tuple(content["concepts"])})

    def put_progress(self, progress: TrainingProgress) -> None:
        """Stores the progress."""
        self._put("progress", progress.SerializeToString())

    def find_progress(self) -> TrainingProgress | None:
        """Returns the progress; None if none is stored."""
        content = self._find("progress")
        return TrainingProgress.FromString(content) if content is not None else None

    def succeed(self, outcome: RunResult | CurveResult) -> None:
        """Stores the result of successful work."""
        kind = _CURVE if isinstance(outcome, CurveResult) else _OUTCOME
        self._put("result.json", json.dumps({kind: _portable(outcome)}).encode())

    def fail(self, error: Exception) -> None:
        """Stores a permanent error."""
        self._put("result.json", json.dumps({"error": error_to_json(error)}).encode())

    def find_result(self) -> RunResult | CurveResult | VestaError | None:
        """Returns the result or the error of the work; None if it is not finished."""
        content = self._find("result.json")
        if content is None:
            return None
        result = json.loads(content)
        if _OUTCOME in result:
            return RunResult(**_unpacked(RunResult, result[_OUTCOME]))
        if _CURVE in result:
            return CurveResult(**_unpacked(CurveResult, result[_CURVE]))
        return error_from_json(result["error"])

    def fetch_checkpoint(self, path: Path) -> None:
        """Downloads the checkpoint of an earlier start, if there is one."""
        try:
            self._objects.download(self._prefix + path.name, path)
        except NotFound:
            return

    def put_checkpoint(self, path: Path) -> None:
        """Stores a checkpoint, so that the work can resume on another machine."""
        self._objects.put_named(self._prefix + path.name, path)

    def remove(self) -> None:
        """Deletes all objects of the work."""
        for key in list(self._objects.list_keys(self._prefix)):
            self._objects.delete(key)

    def _put(self, name: str, content: bytes) -> None:
        self._objects.put_named(self._prefix + name, content)

    def _find(self, name: str) -> bytes | None:
        try:
            return self._objects.get(self._prefix + name)
        except NotFound:
            return None


def error_to_json(error: Exception) -> dict[str, Any]:
    """Converts an error to JSON values. Unexpected exceptions are internal errors."""
    return {
        "message": str(error) if isinstance(error, VestaError) else f"{type(error).__name__}: {error}",
        "reason": error.reason if isinstance(error, VestaError) else CRASHED,
        "refused": isinstance(error, VestaError) and not isinstance(error, Internal),
    }


def error_from_json(values: dict[str, Any]) -> VestaError:
    """Converts JSON values from `error_to_json` to an error."""
    kind = FailedPrecondition if values["refused"] else Internal
    return kind(values["message"], reason=values["reason"])


def list_work(objects: ObjectStore) -> set[str]:
    """Returns the names of all work that has objects."""
    return {key.split("/")[1] for key in objects.list_keys(f"{FOLDER}/")}


def _portable(outcome: RunResult | CurveResult) -> dict[str, Any]:
    """Converts a result to JSON values, with messages in base64."""

    def packed(value: Any) -> Any:
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        return [packed(entry) for entry in value] if isinstance(value, tuple) else value

    return {field.name: packed(getattr(outcome, field.name)) for field in fields(outcome)}


def _unpacked(kind: type[RunResult | CurveResult], values: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a result. Results of the previous version have further fields."""

    def unpacked(name: str, value: Any) -> Any:
        if name in _MESSAGES and value is not None:
            return base64.b64decode(value)
        return tuple(map(base64.b64decode, value)) if isinstance(value, list) else value

    own = {field.name for field in fields(kind)}
    return {name: unpacked(name, value) for name, value in values.items() if name in own}
