"""What the training service can be told by its environment."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.addresses import PeerAddress
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read once, at start."""

    model_config = SettingsConfigDict(env_prefix="VESTA_TRAINING_")

    datasets_address: PeerAddress = Field(description="HOST:PORT of the datasets service")
    serving_address: PeerAddress = Field(
        description="HOST:PORT of the serving service, which knows whether a model version is deployed"
    )
    work_folder: str = Field(description="a folder for what is kept between runs; it may be lost at any time")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="what runs compute on; auto takes a GPU where there is one"
    )
    threads: int = Field(
        0, ge=0, le=256, description="threads that a run computes with; 0 shares the cores that this process may use"
    )
    workers: int = Field(1, ge=1, le=16, description="runs that this process trains at the same time")
