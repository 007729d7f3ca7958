"""Settings of the datasets service, read from environment variables."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.rpc.addresses import PeerAddress
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Settings of the process. They are read once, at startup."""

    model_config = SettingsConfigDict(env_prefix="VESTA_DATASETS_")

    work_folder: str = Field(
        "",
        description="a folder for imports and exports under way, the system's for temporary files if empty; "
        "it may be lost at any time",
    )
    connection_address: PeerAddress = Field(
        description="HOST:PORT of the connection service, which takes in imported media"
    )
