"""Derives the state of a run from the Kubernetes objects of its Job, with the messages of the cluster. Pure functions on JSON objects."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vesta_common.errors import Unavailable, VestaError

from vesta_training.errors import DeadlinePassedError, LearningError
from vesta_training.executors import DIED, Observation, State
from vesta_training.runs.exit_codes import TERMINATED_EXIT_CODE, TRANSIENT_EXIT_CODE

Object = Mapping[str, Any]

REASON_CHARACTERS_MAX = 500
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
_PULLING = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONSEQUENCES = {TRANSIENT_EXIT_CODE, TERMINATED_EXIT_CODE}
_LOST = {"NodeLost", "NodeShutdown", "Terminated"}


class WorkKilledError(LearningError):
    """A container was killed or failed permanently; a retry would fail again."""

    default_reason = "TRAINING_WORK_KILLED"


@dataclass(frozen=True)
class Seen:
    """The Kubernetes objects of a Job.

    Attributes:
        pods: oldest first.
        events: of the Job and its pods, oldest first.
        workload: the Kueue Workload; None if there is none.
    """

    job: Object
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()
    workload: Object | None = None


def observed(seen: Seen) -> Observation:
    """Returns the state, with the reason if the Job waits or has failed."""
    if seen.job["metadata"].get("deletionTimestamp"):
        return Observation(State.ENDING, waiting_reason="waits until the pods of an earlier attempt are deleted")
    failed = _condition(seen.job, "Failed") or _condition(seen.job, "FailureTarget")
    if failed:
        return Observation(State.FAILED, error=_failure(seen, failed))
    live = [pod for pod in seen.pods if pod["status"].get("phase") in {"Pending", "Running", "Unknown", None}]
    completions = seen.job["spec"].get("completions") or 1
    done = seen.job["status"].get("succeeded") or 0
    running = [pod for pod in live if _runs(pod)]
    if done + len(running) >= completions:
        return Observation(State.RUNNING)
    return Observation(State.PENDING, waiting_reason=waiting_reason(seen, live)[:REASON_CHARACTERS_MAX])


def waiting_reason(seen: Seen, live: Iterable[Object]) -> str:
    """Returns why the Job is not running: the reason of the first pod that is not running."""
    if seen.job["spec"].get("suspend"):
        return _queued(seen)
    for pod in live:
        if _runs(pod):
            continue
        name = pod["metadata"]["name"]
        if _lost(pod):
            return f"{name} is lost: {_lost(pod)}"
        scheduled = _condition(pod, "PodScheduled", "False")
        if scheduled:
            return scheduled.get("message") or scheduled.get("reason") or "waits for a node"
        for container in _containers(pod):
            waiting = container.get("state", {}).get("waiting")
            if waiting and waiting.get("reason") in _PULLING:
                return f"{waiting['reason']}: {waiting.get('message') or container.get('image', '')}"
        warning = _last_event(seen.events, name)
        if warning:
            return f"{warning['reason']}: {warning.get('message', '')}"
        for container in _containers(pod):
            waiting = container.get("state", {}).get("waiting")
            if waiting:
                return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    cause = _cause(seen)
    if cause is not None:
        return f"restarts after: {_ended(cause)}"
    warning = _last_event(seen.events, seen.job["metadata"]["name"])
    return f"{warning['reason']}: {warning.get('message', '')}" if warning else "waits for its pods to be created"


def _failure(seen: Seen, failed: Object) -> VestaError:
    if failed.get("reason") == "DeadlineExceeded":
        return DeadlinePassedError(int(seen.job["spec"].get("activeDeadlineSeconds") or 0))
    cause = _cause(seen)
    if cause is None:
        return WorkKilledError(f"its Job failed: {failed.get('reason')}: {failed.get('message', '')}")
    why = _ended(cause)[:REASON_CHARACTERS_MAX]
    if _exit_code(cause) == TRANSIENT_EXIT_CODE:
        return Unavailable(why)
    if _condition(cause, "DisruptionTarget"):
        return Unavailable(why, reason=DIED)
    return WorkKilledError(why)


def _cause(seen: Seen) -> Any:
    """Returns the failed pod that is the root cause; None if no pod has failed.

    Only the latest pod of each index counts. A pod that failed because of another one, or that was terminated, is returned only if there
    is no other.
    """
    last = {pod["metadata"].get("labels", {}).get(INDEX_LABEL, ""): pod for pod in seen.pods if _failed(pod)}
    ended = list(last.values())
    causes = [pod for pod in ended if _condition(pod, "DisruptionTarget") or _exit_code(pod) not in _CONSEQUENCES]
    return next(iter([*reversed(causes), *reversed(ended)]), None)


def _failed(pod: Object) -> bool:
    return bool(pod["status"].get("phase") == "Failed")


def _exit_code(pod: Object) -> int | None:
    return next((int(terminated["exitCode"]) for terminated in _terminated(pod)), None)


def _ended(pod: Object) -> str:
    """Returns why a pod failed."""
    disrupted = _condition(pod, "DisruptionTarget")
    name, status = pod["metadata"]["name"], pod["status"]
    if status.get("reason") == "Evicted" or (disrupted and not list(_terminated(pod))):
        return f"{name} was evicted: {status.get('message') or (disrupted or {}).get('message') or 'no reason given'}"
    if disrupted:
        return f"{name} was disrupted: {disrupted.get('reason')}: {disrupted.get('message', '')}"
    for terminated in _terminated(pod):
        if terminated.get("reason") == "OOMKilled":
            limit = _memory_limit(pod)
            return (
                f"OOMKilled: {name} exceeded its memory limit{limit and f' of {limit}'}; raise the "
                "limit, or choose a smaller recipe"
            )
        message = (terminated.get("message") or "").strip()
        return f"{name} ended with exit code {terminated['exitCode']}" + (f": {message}" if message else "")
    return f"{name} failed: {status.get('reason') or 'no reason given'}: {status.get('message') or ''}".rstrip(": ")


def _queued(seen: Seen) -> str:
    """Returns why a suspended Job waits, from the Kueue Workload if there is one."""
    if seen.workload is not None:
        # A deactivated Workload that had no quota keeps its condition of waiting for some.
        deactivated = _condition(seen.workload, "Evicted") if seen.workload["spec"].get("active") is False else None
        waits = (_condition(seen.workload, kind, "False") for kind in ("QuotaReserved", "Admitted"))
        for condition in (deactivated, *waits):
            if condition:
                return f"queued by Kueue: {condition.get('message') or condition.get('reason')}"
        return "queued by Kueue"
    return "its Job is suspended; Kueue or the user who suspended it must resume it"


def _runs(pod: Object) -> bool:
    ready = all("running" in container.get("state", {}) for container in _containers(pod))
    return pod["status"].get("phase") == "Running" and ready and not _lost(pod)


def _lost(pod: Object) -> str:
    """Returns why an existing pod counts as lost; empty if it does not."""
    status = pod["status"]
    if status.get("phase") == "Unknown" or status.get("reason") in _LOST:
        return f"{status.get('reason') or 'its node does not respond'}: {status.get('message') or ''}".rstrip(": ")
    # The node lifecycle controller sets Ready to False without a reason; a kubelet always sets a reason.
    ready, evicted = _condition(pod, "Ready", "False"), _condition(pod, "DisruptionTarget")
    if (ready and not ready.get("reason")) or (evicted and evicted.get("reason") == "DeletionByTaintManager"):
        return f"its node {pod['spec'].get('nodeName', '')} does not respond"
    return ""


def _containers(pod: Object) -> list[Any]:
    status = pod["status"]
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _terminated(pod: Object) -> Iterable[Any]:
    for container in _containers(pod):
        terminated = container.get("state", {}).get("terminated")
        if terminated and terminated["exitCode"]:
            yield terminated


def _memory_limit(pod: Object) -> str:
    limits = [
        container.get("resources", {}).get("limits", {}).get("memory", "")
        for container in pod["spec"].get("containers", ())
    ]
    return next(filter(None, limits), "")


def _condition(resource: Object, kind: str, status: str = "True") -> Any:
    conditions = resource.get("status", {}).get("conditions") or ()
    return next(
        (condition for condition in conditions if (condition["type"], condition["status"]) == (kind, status)), None
    )


def _last_event(events: Sequence[Object], name: str) -> Any:
    mine = [event for event in events if event.get("type") == "Warning" and event["involvedObject"].get("name") == name]
    return mine[-1] if mine else None
