"""Builds the Kubernetes Job of a run. Pure functions.

The pod meets the restricted Pod Security Standard, has no service account token, and needs access only to the object store.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from vesta_training.runs.exit_codes import KILLED_EXIT_CODE, PERMANENT_EXIT_CODE

RENDEZVOUS_PORT = 29500
PATIENCE_SECONDS = 2_592_000
"""How long the pods of a run without a deadline wait for each other."""
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
    """The operator's configuration of training pods.

    Attributes:
        image: a container image with `vesta_training` and torch.
        secret: a Secret of the namespace with the keys `s3-access-key` and `s3-secret-key`; empty if the pods need none.
        service: a headless Service that selects the pods, for their discovery in multi-node runs.
        owner: distinguishes the Jobs of several training services in the same namespace.
        queue: the Kueue LocalQueue; `{project}` is replaced by the project of the run. Empty without Kueue.
        nodes: number of pods of a run whose recipe fine-tunes.
        gpu_resource, gpus: the extended resource of a GPU, and the number of GPUs per pod of such a run. Each GPU has one process.
        shm_mib: size of `/dev/shm`.
        ttl_seconds: time after which a finished Job is deleted.
        overlay: a pod template that is merged over the default one; see `merged`.
        environment: environment variables of the container, such as the address of the object store.
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
    """Returns the manifest of the Job of `work`.

    Args:
        run: name of the run.
        finetunes: whether the recipe fine-tunes. Only then are GPUs and several nodes used.
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
        spec["suspend"] = True  # Kueue resumes the Job when it is admitted
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": work, "labels": {**labels, **queue}, "annotations": {"vesta/training-run": run}},
        "spec": spec,
    }


_FAILURE_POLICY = {
    "rules": [
        # Evictions, preemptions and node drains are not failures: the pod is recreated and resumes from its checkpoint.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        # Permanent errors, and containers that were killed, most likely for exceeding the memory limit, would fail again.
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": CONTAINER,
                "operator": "In",
                "values": [PERMANENT_EXIT_CODE, KILLED_EXIT_CODE],
            },
        },
    ]
}


def merged(base: Any, overlay: Any, key: str = "") -> Any:
    """Merges a pod template over another one, with a subset of Kubernetes' strategic merge patch.

    Mappings are merged, and null removes a key. The lists `containers`, `initContainers`, `env`, `volumes` and `imagePullSecrets` are
    merged by `name`, `volumeMounts` by `mountPath`, and `ports` by `containerPort`. `tolerations` and `topologySpreadConstraints` are
    appended. Any other list is replaced.
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
            rows = {entry[by]: deepcopy(entry) for entry in base}
            for entry in overlay:
                rows[entry[by]] = merged(rows[entry[by]], entry) if entry[by] in rows else deepcopy(entry)
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
        # With this setting, NCCL raises an exception for a lost process instead of aborting.
        environment.append({"name": "TORCH_NCCL_BLOCKING_WAIT", "value": "1"})
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
    """Returns the command of the container. With more than one process it is torchrun, which waits for all pods of the run."""
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
