"""Settings of the annotation service, read from environment variables."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.rpc.addresses import PeerAddress
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Settings, read once at start-up."""

    model_config = SettingsConfigDict(env_prefix="VESTA_ANNOTATION_")

    datasets_address: PeerAddress = Field(description="HOST:PORT of the datasets service")
