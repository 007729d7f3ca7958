"""Settings of `vesta-admin`, read from environment variables."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.settings import EngineSettings


class Settings(EngineSettings):
    """Settings of the engines, with a user who may create databases, buckets and topics."""

    model_config = SettingsConfigDict(env_prefix="VESTA_ADMIN_")

    wait_seconds: int = Field(
        300, ge=0, le=3600, description="the maximum wait for an engine that does not respond, in seconds"
    )
    triton_prefix: str = Field(
        "triton",
        pattern="^[^/].*[^/]$",
        description="the prefix of Triton's model repository in the bucket; Triton does not start without it",
    )
