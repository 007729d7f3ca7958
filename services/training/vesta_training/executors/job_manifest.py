"""The Kubernetes Job of a run's work. Pure.

The pod meets the restricted pod security standard, has no token of the cluster's, and reaches the object store alone.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from vesta_training.runs.exit_codes import KILLED_EXIT_CODE, REFUSED_EXIT_CODE

RENDEZVOUS_PORT = 29500
PATIENCE_SECONDS = 2_592_000
"""How long pods wait for the others of a run that has no deadline."""
STARTS_MAX = 3
UID = 10001
COMPONENT_LABEL = "app.kubernetes.io/component"
WORK_LABEL = "vesta/work"
OWNER_LABEL = "vesta/training"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PROJECT_LABEL = "vesta/project"
CONTAINER = "trainer"
WORK_FOLDER = "/work"
_SECRET_KEYS = {"VESTA_TRAINER_S3_ACCESS_KEY": "s3-access-key", "VESTA_TRAINER_S3_SECRET_KEY": "s3-secret-key"}
_MERGED_BY = {"volumeMounts": "mountPath", "ports": "containerPort"}
_KEYED_BY_NAME = {"containers", "initContainers", "env", "volumes", "imagePullSecrets"}


@dataclass(frozen=True)
class Pods:
    """What an operator says of training pods.

    Attributes:
        image: has `vesta_training` and torch.
        secret: of the namespace, with the keys `s3-access-key` and `s3-secret-key`; empty where the pods need none.
        service: a headless Service that selects them, by which several nodes find each other.
        owner: whose Jobs these are, among several training services in a namespace.
        queue: of Kueue; `{project}` stands for the run's project. Empty without Kueue.
        nodes: pods of a run whose recipe fine-tunes.
        gpu_resource, gpus: the extended resource of a GPU, and how many a pod of such a run asks for; each has its process.
        shm_mib: size of `/dev/shm`.
        ttl_seconds: after which an ended Job is deleted.
        overlay: a pod template that is merged over ours; see `merged`.
        environment: of the container, such as the address of the object store.
    """

    image: str
    secret: str = ""
    service: str = "trainers"
    owner: str = "training"
    queue: str = ""
    nodes: int = 1
    gpu_resource: str = "nvidia.com/gpu"
    gpus: int = 0
    shm_mib: int = 256
    ttl_seconds: int = 3600
    overlay: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def job_manifest(work: str, run: str, *, pods: Pods, finetunes: bool, deadline_seconds: int) -> dict[str, Any]:
    """The Job of `work`.

    Args:
        run: the run's name.
        finetunes: whether its recipe tunes a network, which is what GPUs and several nodes are for.
        deadline_seconds: 0 for none.
    """
    project = run.split("/")[1] if run.startswith("projects/") else ""
    nodes = pods.nodes if finetunes else 1
    labels = {
        "app.kubernetes.io/name": "vesta",
        COMPONENT_LABEL: "trainer",
        OWNER_LABEL: pods.owner,
        WORK_LABEL: work,
        PROJECT_LABEL: project[:63].strip("-._"),
    }
    gpus = pods.gpus if finetunes else 0
    command = _command(work, pods, nodes, gpus, deadline_seconds or PATIENCE_SECONDS)
    template = merged(_pod_template(pods, command, gpus), pods.overlay)
    template["metadata"]["labels"] |= labels
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": STARTS_MAX * nodes,
        "podFailurePolicy": _FAILURE_POLICY,
        "ttlSecondsAfterFinished": pods.ttl_seconds,
        "template": template,
    }
    if deadline_seconds:
        spec["activeDeadlineSeconds"] = deadline_seconds
    queue = {QUEUE_LABEL: pods.queue.format(project=project)} if pods.queue else {}
    if queue:
        spec["suspend"] = True  # Kueue resumes it when the queue has room
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": work, "labels": {**labels, **queue}, "annotations": {"vesta/training-run": run}},
        "spec": spec,
    }


_FAILURE_POLICY = {
    "rules": [
        # An eviction, a preemption or a drained node is no failure: the pod is made again, and goes on from its checkpoint.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        # What the memory limit kills, it kills again.
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": CONTAINER,
                "operator": "In",
                "values": [REFUSED_EXIT_CODE, KILLED_EXIT_CODE],
            },
        },
    ]
}


def merged(base: Any, overlay: Any, key: str = "") -> Any:
    """A pod template with another merged over it: a subset of Kubernetes' strategic merge.

    Mappings are merged, and a null removes. Of the lists, `containers`, `initContainers`, `env`, `volumes` and `imagePullSecrets` are
    merged by `name`, `volumeMounts` by `mountPath`, `ports` by `containerPort`; `tolerations` and `topologySpreadConstraints` are
    appended; any other list replaces ours.
    """
    if isinstance(base, Mapping) and isinstance(overlay, Mapping):
        both = {**deepcopy(dict(base))}
        for name, value in overlay.items():
            if value is None:
                both.pop(name, None)
            else:
                both[name] = merged(both[name], value, name) if name in both else deepcopy(value)
        return both
    if isinstance(base, list) and isinstance(overlay, list):
        if key in {"tolerations", "topologySpreadConstraints"}:
            return [*deepcopy(base), *deepcopy(overlay)]
        by = _MERGED_BY.get(key, "name" if key in _KEYED_BY_NAME else "")
        if by:
            rows = {one[by]: deepcopy(one) for one in base}
            for one in overlay:
                rows[one[by]] = merged(rows[one[by]], one) if one[by] in rows else deepcopy(one)
            return list(rows.values())
    return deepcopy(overlay)


def _pod_template(pods: Pods, command: list[str], gpus: int) -> dict[str, Any]:
    environment: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in pods.environment.items()]
    if pods.secret:
        for name, key in _SECRET_KEYS.items():
            environment.append({"name": name, "valueFrom": {"secretKeyRef": {"name": pods.secret, "key": key}}})
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        {"name": "work", "mountPath": WORK_FOLDER},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "work", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{pods.shm_mib}Mi"}},
    ]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": pods.image,
        "command": command,
        "env": environment,
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if gpus:
        environment.append(
            {"name": "TORCH_NCCL_BLOCKING_WAIT", "value": "1"}
        )  # a lost process is an error, and no abort
        container["resources"] = {"limits": {pods.gpu_resource: str(gpus)}}
    return {
        "metadata": {"labels": {}},
        "spec": {
            "restartPolicy": "Never",
            "subdomain": pods.service,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": UID,
                "runAsGroup": UID,
                "fsGroup": UID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": volumes,
        },
    }


def _command(work: str, pods: Pods, nodes: int, gpus: int, patience_seconds: int) -> list[str]:
    """What a pod starts: torchrun where there is more than one process, which waits until all pods of the run are there."""
    module = ["-m", "vesta_training.runs.trainer", work]
    if nodes == 1 and gpus <= 1:
        return ["python", *module]
    return [
        *("python", "-m", "vesta_training.runs.torchrun"),
        f"--nnodes={nodes}",
        f"--nproc-per-node={max(1, gpus)}",
        "--node-rank=$(JOB_COMPLETION_INDEX)",
        f"--master-addr={work}-0.{pods.service}",
        f"--master-port={RENDEZVOUS_PORT}",
        f"--rdzv-conf=timeout={patience_seconds}",
        *module,
    ]
