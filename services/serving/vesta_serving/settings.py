"""Settings of the serving service, read from environment variables."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.rpc.addresses import PeerAddress
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Settings, read once at start-up."""

    model_config = SettingsConfigDict(env_prefix="VESTA_SERVING_")

    datasets_address: PeerAddress = Field(description="HOST:PORT of the datasets service")
    training_address: PeerAddress = Field(description="HOST:PORT of the training service, which has the model registry")
    triton_address: str = Field(
        pattern=r"^\S+:[0-9]{1,5}(,\s*\S+:[0-9]{1,5})*$",
        description="HOST:PORT of Triton's gRPC API; several are separated by commas, and a name that "
        "resolves to several addresses means all of them",
    )
    triton_instances: int = Field(
        2,
        ge=1,
        le=64,
        description="instances of each backbone in Triton, with one thread and about 90 MiB of memory each; "
        "use the number of its cores",
    )
    triton_idle_minutes: int = Field(
        60,
        ge=1,
        le=60 * 24 * 365,
        description="Triton unloads a model whose deployments have not predicted for this time; the next "
        "request loads it again and takes about a second longer",
    )
    triton_gpu: bool = Field(False, description="whether Triton has GPUs")
    images_in_flight_max: int = Field(
        128,
        ge=1,
        le=1000,
        description="maximum number of images predicted concurrently, each of which may use a thread; "
        "more are rejected",
    )
    predict_wait_max_ms: int = Field(
        500,
        ge=10,
        le=60_000,
        description="the maximum estimated queue time of an image; images that would wait longer are "
        "rejected as OVERLOADED",
    )
    prediction_log_days: int = Field(30, ge=1, le=3650, description="the retention of the prediction log")
    sandbox_processes: int = Field(2, ge=1, le=64, description="the number of child processes that decode images")
