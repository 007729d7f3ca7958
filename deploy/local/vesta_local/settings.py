"""Settings of the local platform, read from environment variables: the connections to external engines."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_admin.settings import Settings as AdminSettings

POSTGRES, OBJECTS, EVENTS, INFERENCE = "postgres", "objects", "events", "inference"


class Settings(AdminSettings):
    """The external engines. The home runs its own engine for each one without an address."""

    model_config = SettingsConfigDict(env_prefix="VESTA_LOCAL_")

    postgres_url: str = Field(
        "",
        repr=False,
        pattern="^(postgres(ql)?://.*)?$",
        description="postgresql://USER:PASSWORD@HOST:PORT/DATABASE of an external PostgreSQL",
    )
    triton_address: str = Field(
        "",
        pattern=r"^(\S+:[0-9]{1,5}(,\s*\S+:[0-9]{1,5})*)?$",
        description="HOST:PORT of the gRPC API of an external Triton, whose model repository is "
        "TRITON_PREFIX in the bucket; several are separated by commas",
    )

    @property
    def external(self) -> frozenset[str]:
        """The external engines: those with an address."""
        addresses = {
            POSTGRES: self.postgres_url,
            OBJECTS: self.s3_endpoint_url,
            EVENTS: self.kafka_bootstrap,
            INFERENCE: self.triton_address,
        }
        return frozenset(name for name, address in addresses.items() if address)
