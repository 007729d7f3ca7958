"""What the pod of a training Job can be told by its environment."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.settings import EngineSettings


class TrainerSettings(EngineSettings):
    """Settings of the pod of a training Job, which reaches the object store alone."""

    model_config = SettingsConfigDict(env_prefix="VESTA_TRAINER_")

    postgres_url: str = Field("", pattern="^$", description="none: training Jobs reach no database")
    work_folder: str = Field("/work", description="a folder for what the work lays down")
    threads: int = Field(0, ge=0, le=256, description="threads to compute with; 0 for the cores that the pod may use")
