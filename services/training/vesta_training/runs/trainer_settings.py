"""Settings of the pod of a training Job, read from environment variables."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from vesta_common.settings import EngineSettings


class TrainerSettings(EngineSettings):
    """Settings of the pod of a training Job, which accesses only the object store."""

    model_config = SettingsConfigDict(env_prefix="VESTA_TRAINER_")

    postgres_url: str = Field("", pattern="^$", description="none: training Jobs do not use the database")
    work_folder: str = Field("/work", description="a folder for temporary files of the training")
    threads: int = Field(0, ge=0, le=256, description="the number of CPU threads; 0 for the number of cores of the pod")
    heartbeat_timeout_seconds: int = Field(
        300,
        ge=5,
        le=3600,
        description="after this time without a heartbeat, another process of the run counts as lost",
    )


class TorchrunSettings(BaseSettings):
    """The environment variables that torchrun sets. The defaults apply to a single process without torchrun.

    Attributes:
        rank, world_size: rank of this process, and number of processes of the run.
        local_rank, local_world_size: rank of this process in its pod, and number of processes of the pod.
        master_addr, master_port: address of the TCPStore of the first pod's torchrun.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    master_addr: str = ""
    master_port: int = 0
