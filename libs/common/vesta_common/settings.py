"""How a service learns its settings: one frozen class a service, read from the environment once, checked at start."""

import sys
from typing import Any, TypeVar, get_origin

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

S = TypeVar("S", bound="ServiceSettings")

EXIT_WRONG_SETTINGS = 2


class ServiceSettings(BaseSettings):
    """What every service can be told. A service's own class adds its fields and sets `env_prefix` to `VESTA_<SERVICE>_`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    listen_address: str = Field("127.0.0.1:0", description="HOST:PORT of gRPC; port 0 picks a free one")
    metrics_address: str = Field("127.0.0.1:0", description="HOST:PORT of Prometheus metrics")
    postgres_url: str = Field(repr=False, description="postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    postgres_schema: str = Field("", description="the schema of the service; its own name if empty")
    postgres_connections_max: int = Field(8, ge=2, le=200, description="most connections to PostgreSQL")
    s3_endpoint_url: str = Field("", description="the S3 endpoint; empty for the provider's own")
    s3_access_key: str = Field("", description="S3 access key id")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="S3 secret access key")
    s3_region: str = Field("us-east-1", description="S3 region")
    s3_bucket: str = Field("vesta", description="the bucket of the platform")
    s3_prefix: str = Field("", description="put before every key; ends in a slash, or is empty")
    kafka_bootstrap: str = Field("", description="HOST:PORT of a Kafka broker")
    kafka_topic_prefix: str = Field("", description="put before every topic and consumer group")
    kafka_fetch_wait_ms: int = Field(
        500,
        ge=1,
        le=5000,
        description="how long a broker may hold back the answer that there is no event yet; Kafka answers at once when one "
        "comes, simpler brokers only at the end",
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")
    log_format: str = Field("json", pattern="^(json|console)$", description="json or console")


def load_settings(kind: type[S]) -> S:
    """Reads the settings; leaves the process with status 2 where some are wrong, naming each by its environment variable."""
    try:
        return kind()
    except ValidationError as error:
        for problem in error.errors():
            field = str(problem["loc"][0]) if problem["loc"] else ""
            described = kind.model_fields[field].description if field in kind.model_fields else None
            wanted = f"; wanted is {described}" if described else ""
            sys.stderr.write(f"{environment_name(kind, field)}: {problem['msg']}{wanted}\n")
        sys.exit(EXIT_WRONG_SETTINGS)


def environment_name(kind: type[ServiceSettings], field: str) -> str:
    """The environment variable of a field."""
    return f"{kind.model_config.get('env_prefix', '')}{field}".upper()


def describe(kind: type[ServiceSettings]) -> list[tuple[str, str, str, str]]:
    """Each setting as (environment variable, type, default, what it is), for the documentation."""
    rows = []
    for name, field in kind.model_fields.items():
        annotation: Any = field.annotation
        type_name = str(annotation) if get_origin(annotation) else annotation.__name__
        default = "required" if field.is_required() else str(field.default)
        rows.append((environment_name(kind, name), type_name, default, field.description or ""))
    return rows
