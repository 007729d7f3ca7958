"""Settings of the conductor, read from environment variables."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.rpc.addresses import PeerAddress
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Settings, read once at start-up."""

    model_config = SettingsConfigDict(env_prefix="VESTA_CONDUCTOR_")

    datasets_address: PeerAddress = Field(description="HOST:PORT of the datasets service")
    annotation_address: PeerAddress = Field(description="HOST:PORT of the annotation service")
    training_address: PeerAddress = Field(description="HOST:PORT of the training service")
    serving_address: PeerAddress = Field(description="HOST:PORT of the serving service")
    connection_address: PeerAddress = Field(description="HOST:PORT of the connection service")
    pipelining_address: PeerAddress = Field(description="HOST:PORT of the pipelining service")
    workers: int = Field(2, ge=1, le=64, description="the number of Loops that are reconciled concurrently")
