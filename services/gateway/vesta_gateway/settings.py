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
    tls_certificate: Path | None = Field(None, description="PEM file of the certificate chain; no TLS if empty")
    tls_key: Path | None = Field(None, description="PEM file of the key of the certificate")
    trusted_proxies: str = Field(
        "",
        description="IP addresses and networks of trusted proxies, separated by commas: their "
        "X-Forwarded-For is used by both APIs, and X-Forwarded-Proto by REST; * trusts all. "
        "Without it, all clients behind a proxy count as one",
    )
    wheels_folder: Path | None = Field(
        None, description="folder of the Python wheels that are served at /simple/; none if empty"
    )
    cors_origins: tuple[str, ...] = Field((), description='allowed CORS origins, as JSON: ["https://…"]')

    connection_address: PeerAddress = Field("", description="HOST:PORT of connection")
    datasets_address: PeerAddress = Field("", description="HOST:PORT of datasets")
    annotation_address: PeerAddress = Field("", description="HOST:PORT of annotation")
    training_address: PeerAddress = Field("", description="HOST:PORT of training")
    serving_address: PeerAddress = Field("", description="HOST:PORT of serving")
    pipelining_address: PeerAddress = Field("", description="HOST:PORT of pipelining")
    conductor_address: PeerAddress = Field("", description="HOST:PORT of conductor")

    owner_key_sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="SHA-256 of the owner key of the platform, 64 hex digits"
    )
    key_cache: timedelta = Field(
        timedelta(seconds=5),
        description="how long API keys are cached: a revoked key or a changed role takes effect "
        "immediately at the replica that changed it, and after at most this time at the "
        "others",
    )

    requests_per_second: float = Field(
        2000,
        gt=0,
        description="requests per second of one key, per gateway replica: N replicas allow N times as many",
    )
    requests_burst: int = Field(4000, ge=1, description="burst size of the requests of one key, per replica")
    unauthenticated_requests_per_second: float = Field(
        10, gt=0, description="unauthenticated requests per second of one address, per replica"
    )
    unauthenticated_requests_burst: int = Field(
        100, ge=1, description="burst size of the unauthenticated requests of one address, per replica"
    )
    concurrent_requests_max: int = Field(512, ge=1, description="concurrent requests, per replica")
    concurrent_requests_per_key_max: int = Field(256, ge=1, description="concurrent requests of one key, per replica")
    concurrent_transfers_max: int = Field(256, ge=1, description="concurrent uploads and downloads, per replica")
    concurrent_transfers_per_key_max: int = Field(
        8,
        ge=1,
        description="concurrent uploads and downloads of one key, per replica; each uses a thread of a service",
    )
    concurrent_watchers_max: int = Field(1000, ge=1, description="concurrent event streams, per replica")
    concurrent_watchers_per_key_max: int = Field(
        200, ge=1, description="concurrent event streams of one key, per replica"
    )
    request_bytes_max: int = Field(64 * _MIB, ge=1024, description="maximum size of a unary request, or of one message")
    upload_bytes_max: int = Field(16 * 1024 * _MIB, ge=1024, description="maximum size of a streamed upload")
    buffered_bytes_max: int = Field(
        256 * _MIB, ge=1024, description="bytes of requests in memory, in both APIs, per replica"
    )
    request_log_retention: timedelta = Field(
        idempotency.RETENTION,
        ge=timedelta(minutes=1),
        description="how long the first response to a request_id is stored; a later repetition is a new request",
    )
    audit_retention: timedelta = Field(
        timedelta(days=400),
        ge=timedelta(days=91),
        description="the retention of the audit log; the database rejects the deletion of entries of the last 90 days",
    )
    call_timeout: timedelta = Field(
        timedelta(seconds=120), description="the maximum duration of a call; clients can request less"
    )
    body_idle_timeout: timedelta = Field(
        timedelta(seconds=30), description="idle timeout of request bodies and streams"
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
