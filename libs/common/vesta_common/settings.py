"""Service settings: a frozen class per service, read from environment variables and validated at startup."""

import os
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from vesta_common.kafka_settings import KafkaSettings
from vesta_common.settings_files import SettingsFileError, SettingsFiles, is_service_link

S = TypeVar("S", bound="EngineSettings")

EXIT_WRONG_SETTINGS = 2
FETCH_WAIT_MS = 500
ADDRESS = r"^\S+:[0-9]{1,5}$"
SIMILARITY_MIN = 0.85  # similarity from 0 to 1 at which an unknown variable is considered a misspelt setting


class EngineSettings(KafkaSettings):
    """Settings for engines and logging, shared by services and `vesta-admin`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's own signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Precedence: arguments, environment variables, then the files named by `…_FILE` variables."""
        return init_settings, env_settings, SettingsFiles(settings_cls)

    postgres_url: str = Field(
        repr=False, pattern="^postgres(ql)?://", description="postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    )
    postgres_password: SecretStr = Field(
        SecretStr(""), description="the password of PostgreSQL; overrides the one in the URL"
    )
    s3_endpoint_url: str = Field(
        "",
        pattern="^(https?://.+)?$",
        description="the S3 endpoint, http(s)://HOST:PORT; the default of the provider if empty",
    )
    s3_access_key: str = Field("", description="S3 access key id")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="S3 secret access key")
    s3_ca_file: str = Field(
        "",
        description="PEM file of the CAs that sign the certificate of the S3 endpoint; the CAs of the system if empty",
    )
    s3_region: str = Field("us-east-1", description="S3 region")
    s3_bucket: str = Field("vesta", description="the bucket of the platform")
    s3_prefix: str = Field(
        "", pattern="^(.*/)?$", description="the prefix of all object keys; ends with a slash, or is empty"
    )
    storage_path: str = Field(
        "",
        description="a folder on the file system of the object store, if it is on this machine: writes "
        "are rejected while less than 2 % of it is free; not monitored if empty",
    )
    kafka_topic_prefix: str = Field(
        "",
        pattern="^[A-Za-z0-9._-]*$",
        description="the prefix of all topics and consumer groups: letters, digits, . _ -",
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")
    log_format: str = Field("json", pattern="^(json|console)$", description="json or console")

    @field_validator("storage_path")
    @classmethod
    def _is_a_folder(cls, path: str) -> str:
        if path and not Path(path).is_dir():
            raise ValueError(f"{path} is not a folder")
        return path

    @property
    def storage_folder(self) -> Path | None:
        """`storage_path` as a path; None if it is not set."""
        return Path(self.storage_path) if self.storage_path else None


class ServiceSettings(EngineSettings):
    """Settings that all services have. Each service's class adds its own fields and sets `env_prefix` to `VESTA_<SERVICE>_`."""

    listen_address: str = Field(
        "127.0.0.1:0", pattern=ADDRESS, description="HOST:PORT of gRPC; port 0 picks a free one"
    )
    metrics_address: str = Field("127.0.0.1:0", pattern=ADDRESS, description="HOST:PORT of Prometheus metrics")
    postgres_schema: str = Field(
        "",
        pattern="^([a-z_][a-z0-9_]{0,55})?$",  # the notification channel adds a suffix, and its name has at most 63 characters
        description="the schema of the service, at most 56 of a-z, 0-9 and _; the name of the service if empty",
    )
    postgres_connections_max: int = Field(8, ge=2, le=200, description="maximum number of connections to PostgreSQL")
    migrations: str = Field(
        "apply",
        pattern="^(apply|check)$",
        description="apply: migrate the schema at start; check: start only if `vesta-admin migrate pre` "
        "has migrated it",
    )
    post_migrations: bool = Field(
        True,
        description="whether to apply migrations that are incompatible with the previous version; false "
        "while replicas of that version run",
    )
    kafka_fetch_wait_ms: int = Field(
        FETCH_WAIT_MS,
        ge=1,
        le=5000,
        description="the maximum wait of a fetch without new events; Kafka returns when an event "
        "arrives, the embedded broker only after this time",
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+:[0-9]{1,5})?$",
        description="http(s)://HOST:PORT of an OpenTelemetry collector that accepts traces by OTLP over "
        "gRPC; no traces are exported if empty",
    )
    otlp_ca_file: str = Field(
        "", description="PEM file of the CAs that sign the certificate of the collector; the CAs of the system if empty"
    )
    otlp_sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="the share of traces that is exported, from 0 to 1; the value of the gateway applies "
        "to a whole trace",
    )
    identity_certificate_file: str = Field(
        "",
        description="PEM file of the certificate of this service; reloaded when it changes, like the key and the CAs",
    )
    identity_key_file: str = Field(
        "", description="PEM file of the key of the certificate; it signs the tokens of calls to other services"
    )
    identity_ca_file: str = Field(
        "",
        description="PEM file of the platform's CAs; calls are accepted from services with a certificate "
        "that one of them issued",
    )
    peer_tls: bool = Field(
        False,
        description="whether calls between services use TLS, with their identity certificates; must be "
        "the same for all services",
    )
    health_address: str = Field(
        "",
        pattern=f"({ADDRESS})?",
        description="HOST:PORT of the gRPC health service alone, always without TLS, for Kubernetes "
        "probes; none if empty",
    )
    queue_wait_max_ms: int = Field(
        1000,
        ge=10,
        le=60_000,
        description="the maximum estimated queue time of a request; requests that would wait longer are "
        "rejected as OVERLOADED",
    )
    drain_ms: int = Field(
        1000,
        ge=0,
        le=60_000,
        description="how long calls are still accepted after SIGTERM while health is NOT_SERVING, so "
        "that clients switch to other replicas; the shutdown then takes at most ten seconds",
    )

    @field_validator("otlp_ca_file")
    @classmethod
    def _is_a_file_of_authorities(cls, path: str) -> str:
        if path and not Path(path).is_file():
            raise ValueError(f"{path} is not a file")
        return path


def load_settings(kind: type[S]) -> S:
    """Reads the settings. Exits with status 2 if some are invalid, and prints the environment variable of each."""
    try:
        settings = kind()
    except SettingsFileError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_WRONG_SETTINGS)
    except ValidationError as error:
        for problem in error.errors():
            field = str(problem["loc"][0]) if problem["loc"] else ""
            described = kind.model_fields[field].description if field in kind.model_fields else None
            expectation = f"; expected: {described}" if described else ""
            sys.stderr.write(f"{environment_name(kind, field)}: {problem['msg']}{expectation}\n")
        sys.exit(EXIT_WRONG_SETTINGS)
    misspelt = list(_misspelt(kind))
    for name, meant in misspelt:
        sys.stderr.write(f"{name}: unknown setting; did you mean {meant}?\n")
    if misspelt:
        sys.exit(EXIT_WRONG_SETTINGS)
    return settings


def _misspelt(kind: type[EngineSettings]) -> Iterator[tuple[str, str]]:
    """Yields variables that are not settings but similar to one. Dissimilar ones are ignored: the cluster may set them."""
    names = [environment_name(kind, field) for field in kind.model_fields]
    known = {*names, *(f"{name}_FILE" for name in names)}
    prefix = environment_name(kind, "")
    for name in sorted(os.environ):
        if prefix and name.startswith(prefix) and name not in known and not is_service_link(name):
            yield from ((name, meant) for meant in get_close_matches(name, names, 1, SIMILARITY_MIN))


def environment_name(kind: type[EngineSettings], field: str) -> str:
    """Returns the environment variable of a field."""
    return f"{kind.model_config.get('env_prefix', '')}{field}".upper()


def describe(kind: type[EngineSettings]) -> list[tuple[str, str, str, str]]:
    """Returns each setting as (environment variable, type, default, description), for the documentation."""
    rows = []
    for name, field in kind.model_fields.items():
        annotation: Any = field.annotation
        type_name = str(annotation) if get_origin(annotation) else annotation.__name__
        default = "required" if field.is_required() else str(field.default)
        rows.append((environment_name(kind, name), type_name, default, field.description or ""))
    return rows
