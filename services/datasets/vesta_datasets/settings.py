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
        description="a folder for active imports and exports and loaded search indexes; the temporary folder of the system if "
        "empty; its content may be lost at any time",
    )
    connection_address: PeerAddress = Field(
        description="HOST:PORT of the connection service, which ingests imported media"
    )
