"""What the annotation service can be told by its environment."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.rpc.addresses import PeerAddress
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read once, at start."""

    model_config = SettingsConfigDict(env_prefix="VESTA_ANNOTATION_")

    datasets_address: PeerAddress = Field(description="HOST:PORT of the datasets service")
