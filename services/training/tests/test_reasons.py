"""States and reasons of runs, derived from the objects of their Jobs."""

from typing import Any

import pytest
from vesta_common.errors import Unavailable, VestaError
from vesta_training.errors import DeadlinePassedError
from vesta_training.executors import State
from vesta_training.executors.reasons import Seen, observed

WORK, POD, OTHER = "train-r-0123456789ab", "train-r-0123456789ab-0-x7k2p", "train-r-0123456789ab-1-x7k2p"


def a_job(conditions: list[dict[str, Any]] | None = None, *, completions: int = 1, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": WORK, "uid": "u"},
        "spec": {"completions": completions, **spec},
        "status": {"conditions": conditions or []},
    }


def a_pod(phase: str = "Pending", *, index: int = 0, **status: Any) -> dict[str, Any]:
    limits = {"resources": {"limits": {"memory": "4Gi"}}}
    return {
        "metadata": {
            "name": f"{WORK}-{index}-x7k2p",
            "labels": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "trainer", **limits}]},
        "status": {"phase": phase, **status},
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": reason, "message": message}}}]}


def terminated(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return {"containerStatuses": [{"name": "trainer", "state": state}]}


def failed(reason: str = "BackoffLimitExceeded", message: str = "Job has reached the specified backoff limit") -> Any:
    return [{"type": "Failed", "status": "True", "reason": reason, "message": message}]


RUNS = {"containerStatuses": [{"name": "trainer", "state": {"running": {}}}]}
NOT_READY = {"type": "Ready", "status": "False"}  # as set by the node lifecycle controller; a kubelet sets a reason
EVICTED = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
UNSCHEDULABLE = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_GPU}]
}
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "for another"}
LOW_ON_MEMORY = {"reason": "Evicted", "message": "The node was low on resource: memory."}
PULL = 'Back-off pulling image "registry/vesta-trainer:2"'
MOUNT = 'MountVolume.SetUp failed for volume "ca" : configmap "ca" not found'
EVENT = {"type": "Warning", "reason": "FailedMount", "message": MOUNT, "involvedObject": {"name": POD}}
REFUSED = {
    "type": "Warning",
    "reason": "FailedCreate",
    "message": 'pods "train-r" is forbidden: exceeded quota',
    "involvedObject": {"name": WORK},
}


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (Seen(a_job()), "waits for its pods to be created"),
        (Seen(a_job(), events=[REFUSED]), 'FailedCreate: pods "train-r" is forbidden: exceeded quota'),
        (Seen(a_job(), [a_pod(**UNSCHEDULABLE)]), NO_GPU),
        (Seen(a_job(), [a_pod(**waiting("ImagePullBackOff", PULL))]), f"ImagePullBackOff: {PULL}"),
        (Seen(a_job(), [a_pod(**waiting("ErrImagePull", "not found"))]), "ErrImagePull: not found"),
        (Seen(a_job(), [a_pod(**waiting("ContainerCreating"))]), "ContainerCreating"),
        (Seen(a_job(), [a_pod(**waiting("ContainerCreating"))], [EVENT]), f"FailedMount: {MOUNT}"),
        (Seen(a_job(), [a_pod("Running", **RUNS, reason="NodeLost")]), f"{POD} is lost: NodeLost"),
        (
            Seen(a_job(), [a_pod("Running", **RUNS, conditions=[NOT_READY])]),
            f"{POD} is lost: its node n1 does not respond",
        ),
        (
            Seen(a_job(), [a_pod("Running", **RUNS, conditions=[EVICTED])]),
            f"{POD} is lost: its node n1 does not respond",
        ),
        (
            Seen(a_job(), [a_pod("Failed", reason="Evicted", message="The node was low on resource: memory.")]),
            f"restarts after: {POD} was evicted: The node was low on resource: memory.",
        ),
        (Seen(a_job(completions=2), [a_pod("Running", **RUNS), a_pod(index=1, **UNSCHEDULABLE)]), NO_GPU),
        (
            Seen(
                a_job(completions=2),
                [a_pod("Running", **RUNS), a_pod(index=1, **waiting("ErrImagePull", "not found"))],
                [EVENT],  # of the running pod
            ),
            "ErrImagePull: not found",
        ),
        (
            Seen(a_job(completions=2), [a_pod("Failed", index=1, **LOW_ON_MEMORY), a_pod("Failed", **terminated(11))]),
            f"restarts after: {OTHER} was evicted: The node was low on resource: memory.",
        ),
        (
            Seen(
                a_job(completions=2),
                [
                    a_pod("Failed", index=1, conditions=[DISRUPTED], **terminated(143)),
                    a_pod("Failed", **terminated(11)),
                ],
            ),
            f"restarts after: {OTHER} was disrupted: PreemptionByScheduler: for another",
        ),
        (
            Seen(a_job(completions=2), [a_pod("Failed", index=1, **terminated(1)), a_pod("Running", **RUNS)]),
            f"restarts after: {OTHER} ended with exit code 1",
        ),
    ],
)
def test_a_waiting_run_has_a_reason(seen: Seen, reason: str) -> None:
    assert (observed(seen).state, observed(seen).waiting_reason) == (State.PENDING, reason)


NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu"
WAITS = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": NO_QUOTA}
DEACTIVATED = {"type": "Evicted", "status": "True", "reason": "Deactivated", "message": "The workload is deactivated"}


@pytest.mark.parametrize(
    ("active", "conditions", "reason"),
    [
        (True, [], "queued by Kueue"),
        (True, [WAITS], f"queued by Kueue: {NO_QUOTA}"),
        (True, [WAITS, {**DEACTIVATED, "reason": "Preempted"}], f"queued by Kueue: {NO_QUOTA}"),
        (False, [WAITS, DEACTIVATED], "queued by Kueue: The workload is deactivated"),
    ],
)
def test_a_queued_job_has_the_message_of_kueue(active: bool, conditions: list[dict[str, Any]], reason: str) -> None:
    workload = {"spec": {"active": active}, "status": {"conditions": conditions}}
    assert observed(Seen(a_job(suspend=True), workload=workload)).waiting_reason == reason


def test_a_suspended_job_without_a_workload_says_so() -> None:
    assert "suspended" in observed(Seen(a_job(suspend=True))).waiting_reason


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (Seen(a_job(failed("PodFailurePolicy")), [a_pod("Failed", **terminated(137, "OOMKilled"))]), "limit of 4Gi"),
        (
            Seen(a_job(failed()), [a_pod("Failed", **terminated(1, message="No space left on device\n"))]),
            f"{POD} ended with exit code 1: No space left on device",
        ),
        (Seen(a_job(failed("PodFailurePolicy", "Container failed"))), "its Job failed: PodFailurePolicy"),
        (
            Seen(
                a_job(failed("PodFailurePolicy"), completions=2),
                [a_pod("Failed", index=1, **terminated(137, "OOMKilled")), a_pod("Failed", **terminated(11))],
            ),
            f"OOMKilled: {OTHER} exceeded its memory",
        ),
        (
            Seen(
                a_job(failed(), completions=2),
                [a_pod("Failed", **terminated(1, message="no space")), a_pod("Failed", index=1, **terminated(143))],
            ),
            f"{POD} ended with exit code 1: no space",
        ),
    ],
)
def test_a_failed_run_has_a_reason(seen: Seen, says: str) -> None:
    error = observed(seen).error
    assert isinstance(error, VestaError)
    assert (error.reason, says in str(error)) == ("TRAINING_WORK_KILLED", True)


def test_a_run_past_its_deadline_has_that_reason() -> None:
    error = observed(Seen(a_job(failed("DeadlineExceeded"), activeDeadlineSeconds=60))).error
    assert isinstance(error, DeadlinePassedError)
    assert error.reason == "RUN_DEADLINE_EXCEEDED"
    assert "deadline of 60 s" in str(error)


def test_work_without_an_object_store_may_be_restarted() -> None:
    away = terminated(11, message="the object store does not respond")
    error = observed(Seen(a_job(failed()), [a_pod("Failed", **away)])).error
    assert isinstance(error, Unavailable)


def test_work_whose_pods_lost_each_other_may_be_restarted() -> None:
    earlier = a_pod("Failed", **terminated(1))  # a later pod of the same index has ended
    lost = [a_pod("Failed", **terminated(11, message="another process")), a_pod("Failed", index=1, **terminated(11))]
    error = observed(Seen(a_job(failed(), completions=2), [earlier, *lost])).error
    assert isinstance(error, Unavailable)


def test_work_trains_once_all_its_pods_run() -> None:
    assert observed(Seen(a_job(), [a_pod("Running", **RUNS)])).state is State.RUNNING
    both = Seen(a_job(completions=2), [a_pod("Running", **RUNS), a_pod("Running", index=1, **RUNS)])
    assert observed(both).state is State.RUNNING
    half = Seen(a_job(completions=2), [a_pod("Running", **RUNS)])
    assert observed(half).state is State.PENDING


def test_a_job_that_is_being_deleted_is_not_adopted() -> None:
    job = a_job()
    job["metadata"]["deletionTimestamp"] = "2026-03-01T00:00:00Z"
    assert observed(Seen(job)).state is State.ENDING
