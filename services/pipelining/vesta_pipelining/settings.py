"""What the pipelining service can be told by its environment."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read once, at start."""

    model_config = SettingsConfigDict(env_prefix="VESTA_PIPELINING_")

    serving_address: str = Field(description="HOST:PORT of the serving service")
    connection_address: str = Field(description="HOST:PORT of the connection service")
    observation_days: int = Field(30, ge=1, le=3650, description="how long observations are kept")
