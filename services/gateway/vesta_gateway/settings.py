"""Settings of the gateway, read from environment variables."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict
from vesta_common.resources import idempotency
from vesta_common.rpc.addresses import PeerAddress
from vesta_common.settings import ServiceSettings

from vesta_gateway.rest.client_address import Proxies

_MIB = 1024 * 1024


class Settings(ServiceSettings):
    """Settings of the gateway. It has two listening addresses of its own; `listen_address` is not used."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VESTA_GATEWAY_")

    rest_address: str = Field("127.0.0.1:0", description="HOST:PORT of REST; port 0 picks a free one")
    grpc_address: str = Field("127.0.0.1:0", description="HOST:PORT of gRPC; port 0 picks a free one")
    tls_certificate: Path | None = Field(None, description="PEM file of the certificate chain; plain HTTP without it")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key")
    trusted_proxies: str = Field(
        "",
        description="IP addresses and networks of proxies, separated by commas, whose X-Forwarded-For is believed at both doors, and "
        "X-Forwarded-Proto over REST; * for everybody's. Without it all clients behind a proxy count as one",
    )
    wheels_folder: Path | None = Field(
        None, description="folder of the Python wheels that are offered at /simple/; none are without it"
    )
    cors_origins: tuple[str, ...] = Field((), description='origins of web pages that may call, as JSON: ["https://…"]')

    connection_address: PeerAddress = Field("", description="HOST:PORT of connection")
    datasets_address: PeerAddress = Field("", description="HOST:PORT of datasets")
    annotation_address: PeerAddress = Field("", description="HOST:PORT of annotation")
    training_address: PeerAddress = Field("", description="HOST:PORT of training")
    serving_address: PeerAddress = Field("", description="HOST:PORT of serving")
    pipelining_address: PeerAddress = Field("", description="HOST:PORT of pipelining")
    conductor_address: PeerAddress = Field("", description="HOST:PORT of conductor")

    owner_key_sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="SHA-256 of the platform owner's key, 64 hex digits"
    )
    key_cache: timedelta = Field(
        timedelta(seconds=5),
        description="for how long a key that was looked up is believed: a key that is revoked, or a role that changes, counts at once "
        "at the replica that did it, and after this time at most at the others",
    )

    requests_per_second: float = Field(
        2000,
        gt=0,
        description="requests a second of one key, at each replica of the gateway: N replicas allow N times as many",
    )
    requests_burst: int = Field(4000, ge=1, description="requests of one key that may come at once, at each replica")
    refusals_per_second: float = Field(
        10, gt=0, description="unauthenticated requests a second of one address, at each replica"
    )
    refusals_burst: int = Field(
        100, ge=1, description="unauthenticated requests of one address that may come at once, at each replica"
    )
    concurrent_requests_max: int = Field(512, ge=1, description="requests under way at once, at each replica")
    concurrent_requests_per_key_max: int = Field(
        256, ge=1, description="requests of one key under way at once, at each replica"
    )
    concurrent_transfers_max: int = Field(
        256, ge=1, description="uploads and downloads under way at once, at each replica"
    )
    concurrent_transfers_per_key_max: int = Field(
        8,
        ge=1,
        description="uploads and downloads of one key under way at once, at each replica; each holds a thread of a service",
    )
    concurrent_watchers_max: int = Field(1000, ge=1, description="watchers of events at once, at each replica")
    concurrent_watchers_per_key_max: int = Field(200, ge=1, description="watchers of one key at once, at each replica")
    request_bytes_max: int = Field(
        64 * _MIB, ge=1024, description="size of a request that is not streamed, or of one message"
    )
    upload_bytes_max: int = Field(16 * 1024 * _MIB, ge=1024, description="size of a streamed upload")
    buffered_bytes_max: int = Field(
        256 * _MIB, ge=1024, description="bytes of requests in memory at once, over both doors, at each replica"
    )
    request_log_retention: timedelta = Field(
        idempotency.RETENTION,
        ge=timedelta(minutes=1),
        description="how long the first answer to a request_id is kept; a repeat after that is a new request",
    )
    audit_retention: timedelta = Field(
        timedelta(days=400),
        ge=timedelta(days=91),
        description="how long entries of the audit log are kept; the database refuses to delete those of the last 90 days",
    )
    call_timeout: timedelta = Field(
        timedelta(seconds=120), description="how long a call may take; callers may ask for less"
    )
    body_idle_timeout: timedelta = Field(
        timedelta(seconds=30), description="how long a sender, or a reader of a stream, may pause"
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, proxies: str) -> str:
        Proxies(proxies)
        return proxies

    def backend_addresses(self) -> dict[str, str]:
        """Returns the address of each backend service."""
        suffix = "_address"
        own = {"rest", "grpc", "listen", "metrics"}
        return {
            name.removesuffix(suffix): getattr(self, name)
            for name in type(self).model_fields
            if name.endswith(suffix) and name.removesuffix(suffix) not in own
        }
