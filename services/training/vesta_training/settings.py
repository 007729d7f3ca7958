"""Settings of the training service, read from environment variables."""

from typing import Literal

import yaml
from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict
from vesta_common.rpc.addresses import PeerAddress
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Settings of the process. They are read once, at startup."""

    model_config = SettingsConfigDict(env_prefix="VESTA_TRAINING_")

    datasets_address: PeerAddress = Field(description="HOST:PORT of the datasets service")
    serving_address: PeerAddress = Field(
        description="HOST:PORT of the serving service, which knows the deployed model versions"
    )
    work_folder: str = Field(description="a folder for caches between runs; its content may be lost at any time")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="the device of runs; auto uses a GPU if there is one"
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="the number of CPU threads of a run; 0 divides the cores of this process among the workers",
    )
    workers: int = Field(1, ge=1, le=16, description="the number of runs that this process trains concurrently")
    deadline_seconds: int = Field(
        86_400, ge=60, le=2_592_000, description="the maximum duration of a run without a deadline"
    )
    executor: Literal["process", "kubernetes"] = Field(
        "process",
        description="where runs are trained: in processes of this service, or in Jobs of its Kubernetes cluster",
    )
    jobs_image: str = Field("", description="image of training Jobs, with vesta_training and PyTorch")
    jobs_namespace: str = Field("", description="namespace of training Jobs; the namespace of this service if empty")
    jobs_owner: str = Field(
        "training",
        pattern="^[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?$",
        description="label of the Jobs of this installation, if several share a namespace",
    )
    jobs_secret: str = Field(
        "", description="Secret with the keys s3-access-key and s3-secret-key for training Jobs; none if empty"
    )
    jobs_service: str = Field(
        "trainers", description="headless Service of the pods of training Jobs, for the discovery of several nodes"
    )
    jobs_queue: str = Field(
        "",
        pattern=r"^([a-z0-9.-]|\{project\})*$",
        description="Kueue's local queue of training Jobs; {project} is replaced by the project of the "
        "run; none if empty",
    )
    jobs_gpu_resource: str = Field("nvidia.com/gpu", description="extended resource of a GPU, or of a part of one")
    jobs_gpus: int = Field(
        0, ge=0, le=16, description="GPUs per pod of a run whose recipe fine-tunes, with one process per GPU"
    )
    jobs_nodes: int = Field(
        1,
        ge=1,
        le=64,
        description="pods per run whose recipe fine-tunes; each batch is split among them",
    )
    jobs_shm_mib: int = Field(256, ge=1, le=1_048_576, description="size of /dev/shm in training Jobs")
    jobs_ttl_seconds: int = Field(3600, ge=60, le=2_592_000, description="the retention of ended training Jobs")
    jobs_followed_max: int = Field(
        32, ge=1, le=256, description="the number of training Jobs that this process monitors concurrently"
    )
    jobs_pod_template: str = Field(
        "",
        description="a pod template in YAML that is merged into that of training Jobs: node selector, "
        "tolerations, resources",
    )

    @field_validator("jobs_pod_template")
    @classmethod
    def _is_a_template(cls, text: str) -> str:
        if not isinstance(yaml.safe_load(text) or {}, dict):
            raise ValueError("must be a mapping with the keys metadata and spec")  # noqa: TRY004 - pydantic wants it
        return text

    @model_validator(mode="after")
    def _knows_the_image(self) -> "Settings":
        if self.executor == "kubernetes" and not self.jobs_image:
            raise ValueError("VESTA_TRAINING_JOBS_IMAGE is required if VESTA_TRAINING_EXECUTOR is kubernetes")
        return self
