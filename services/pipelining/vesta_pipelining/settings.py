"""Settings of the pipelining service, read from environment variables."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.rpc.addresses import PeerAddress
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Settings, read once at start-up."""

    model_config = SettingsConfigDict(env_prefix="VESTA_PIPELINING_")

    serving_address: PeerAddress = Field(description="HOST:PORT of the serving service")
    connection_address: PeerAddress = Field(description="HOST:PORT of the connection service")
    frames_together_max: int = Field(16, ge=1, le=64, description="maximum number of frames per Predict call")
    observation_days: int = Field(30, ge=1, le=3650, description="the retention of observations")
    uncertain_senders: int = Field(2, ge=1, le=64, description="uncertain frames sent on at a time")
