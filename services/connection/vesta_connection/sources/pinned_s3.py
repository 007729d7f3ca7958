"""Makes boto3 connect to pinned addresses. TLS and the Host header still use the host name."""

from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.httpsession import URLLib3Session
from botocore.session import get_session
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from vesta_connection.sources.pinned_addresses import PinnedAddresses


def pin_client(client: Any, pins: PinnedAddresses) -> None:
    """Makes a boto3 client connect to pinned addresses only.

    If the environment configures a proxy for a host, the proxy resolves names and connects. It must block internal addresses.
    """
    config = client.meta.config
    session = _PinnedSession(
        pins,
        timeout=(config.connect_timeout, config.read_timeout),
        max_pool_connections=config.max_pool_connections,
        verify=get_session().get_config_variable("ca_bundle") or True,  # the default of boto3
    )

    def send(request: Any, **_: Any) -> Any:
        return None if get_environ_proxies(request.url) else session.send(request)

    client.meta.events.register("before-send.s3", send)


class _PinnedSession(URLLib3Session):
    """A boto3 HTTP session with pinned connections."""

    def __init__(self, pins: PinnedAddresses, **options: Any) -> None:
        super().__init__(**options)

        class Connection(_Pinned, AWSHTTPConnection):  # type: ignore[misc]
            known = pins

        class TlsConnection(_Pinned, AWSHTTPSConnection):  # type: ignore[misc]
            known = pins

        class Pool(AWSHTTPConnectionPool):
            ConnectionCls = Connection

        class TlsPool(AWSHTTPSConnectionPool):
            ConnectionCls = TlsConnection

        self._manager.pool_classes_by_scheme = {"http": Pool, "https": TlsPool}  # type: ignore[attr-defined]


class _Pinned:
    """A mixin for urllib3 connections, which use `host` for certificates and headers and connect to `_dns_host`."""

    known: PinnedAddresses
    host: str
    port: int
    _dns_host: str

    def _new_conn(self) -> Any:
        addresses = self.known.addresses(self.host, self.port)
        name = self._dns_host
        try:
            for address in addresses[:-1]:
                self._dns_host = address
                try:
                    return super()._new_conn()  # type: ignore[misc]
                except HTTPError:
                    continue
            self._dns_host = addresses[-1]
            return super()._new_conn()  # type: ignore[misc]
        finally:
            self._dns_host = name
