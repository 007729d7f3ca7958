"""The pods of a Job on this machine: their object store, their environment, and the processes that they start."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import ModelVersion, TrainingProgress
from vesta_training.executors.job_manifest import Pods, job_manifest
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.job import Job, RunResult
from vesta_training.settings import Settings

WORK = "train-r-0123456789ab"
WAIT_SECONDS = 300
HEARTBEAT_TIMEOUT_SECONDS = 60


@dataclass
class Site:
    """The object store, and the environment of the pods of a Job."""

    settings: Settings
    objects: ObjectStore
    job: Job
    folder: Path
    sha256s: list[str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def exchange(self) -> Exchange:
        """Returns the exchange of the work."""
        return Exchange(self.objects, WORK)

    def pod(self, index: int, command: list[str]) -> subprocess.Popen[str]:
        """Starts the command of a pod, with its index in the environment and its own work folder."""
        own = self.folder / f"{WORK}-{index}"
        own.mkdir(exist_ok=True)
        command = [sys.executable if one == "python" else one for one in command]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "VESTA_TRAINER_S3_ENDPOINT_URL": self.settings.s3_endpoint_url,
            "VESTA_TRAINER_S3_REGION": self.settings.s3_region,
            "VESTA_TRAINER_S3_BUCKET": self.settings.s3_bucket,
            "VESTA_TRAINER_S3_PREFIX": self.settings.s3_prefix,
            "VESTA_TRAINER_S3_ACCESS_KEY": self.settings.s3_access_key,
            "VESTA_TRAINER_S3_SECRET_KEY": self.settings.s3_secret_key.get_secret_value(),
            "VESTA_TRAINER_WORK_FOLDER": str(own),
            "VESTA_TRAINER_THREADS": "1",
            "VESTA_TRAINER_HEARTBEAT_TIMEOUT_SECONDS": str(HEARTBEAT_TIMEOUT_SECONDS),
        }
        command = [one.replace("$(JOB_COMPLETION_INDEX)", str(index)) for one in command]
        pod = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.started.append(pod)
        return pod

    def pods(self, *, nodes: int, indexes: Iterable[int] | None = None) -> list[subprocess.Popen[str]]:
        """Starts all or some pods of the Job on this machine."""
        manifest = job_manifest(
            WORK, self.job.run, pods=Pods(image="i", nodes=nodes), finetunes=True, deadline_seconds=WAIT_SECONDS
        )
        command = manifest["spec"]["template"]["spec"]["containers"][0]["command"]
        here = {
            f"--master-addr={WORK}-0.trainers": "--master-addr=127.0.0.1",
            "--master-port=29500": f"--master-port={a_free_port()}",
        }
        return [self.pod(index, [here.get(one, one) for one in command]) for index in indexes or range(nodes)]

    def model(self, outcome: Any) -> tuple[ModelVersion, dict[str, Any]]:
        """Returns the result, and the tensors of its model file by name."""
        assert isinstance(outcome, RunResult), outcome
        version = ModelVersion.FromString(outcome.version)
        return version, numbers_of(onnx.load_model_from_string(self.objects.get(version.onnx_key)))


def numbers_of(model: onnx.ModelProto) -> dict[str, Any]:
    """Returns the tensors of a model file by name."""
    return {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def seen_until(
    exchange: Exchange, pods: list[subprocess.Popen[str]], fits: Callable[[TrainingProgress], bool]
) -> TrainingProgress:
    """Waits for progress that meets a condition."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        now = exchange.find_progress()
        if now is not None and fits(now):
            return now
        assert all(pod.poll() is None for pod in pods), ends_of(pods)
        with contextlib.suppress(subprocess.TimeoutExpired):
            pods[0].wait(0.1)
    raise AssertionError(f"the work is still {exchange.find_progress()}")


def ends_of(pods: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Returns the exit code and the last output of each pod."""
    said = [pod.communicate(timeout=WAIT_SECONDS)[1] for pod in pods]
    return [(pod.returncode, words[-3000:]) for pod, words in zip(pods, said, strict=True)]
