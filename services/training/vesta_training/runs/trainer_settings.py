"""What the pod of a training Job can be told by its environment."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from vesta_common.settings import EngineSettings


class TrainerSettings(EngineSettings):
    """Settings of the pod of a training Job, which reaches the object store alone."""

    model_config = SettingsConfigDict(env_prefix="VESTA_TRAINER_")

    postgres_url: str = Field("", pattern="^$", description="none: training Jobs reach no database")
    work_folder: str = Field("/work", description="a folder for what the work lays down")
    threads: int = Field(0, ge=0, le=256, description="threads to compute with; 0 for the cores that the pod may use")
    silence_seconds: int = Field(
        300,
        ge=5,
        le=3600,
        description="after which a process of the same run from which nothing is heard counts as lost",
    )


class TorchrunSettings(BaseSettings):
    """What torchrun tells each process that it starts; one process alone where there is no torchrun.

    Attributes:
        rank, world_size: of this process among all of the run.
        local_rank, local_world_size: likewise, among those of its pod.
        master_addr, master_port: of the store of the first pod's torchrun.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    master_addr: str = ""
    master_port: int = 0
