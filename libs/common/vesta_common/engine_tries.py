"""How a service tries its engines, each on a new connection: the database, the topics it reads, the object store."""

import socket
import ssl
from collections.abc import Collection

import psycopg
from kafka import KafkaAdminClient
from psycopg.conninfo import conninfo_to_dict

from vesta_common.broker import Broker
from vesta_common.engine_watch import KAFKA, OBJECTS, POSTGRES, MissingTopicsError, Try
from vesta_common.postgres import CONNECT_TIMEOUT, address_of
from vesta_common.settings import EngineSettings

_REQUEST_TIMEOUT_MS = 5000
_POSTGRES_PORT = 5432
# https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest: length 8, code 80877103
_POSTGRES_TLS_REQUEST = bytes([0, 0, 0, 8, 4, 210, 22, 47])


def tries_of(service: str, settings: EngineSettings, topics: Collection[str], *, has_objects: bool) -> dict[str, Try]:
    """What a service needs: its database, the topics it reads, and the object store where it has one."""
    found: dict[str, Try] = {POSTGRES: lambda: _try_postgres(settings)}
    if has_objects:
        from vesta_common.objects import ObjectStore  # boto3 is for those alone that have objects

        store = ObjectStore.of(settings, attempts_max=1)
        found[OBJECTS] = lambda: store.check(f".health/{service}")
    if settings.kafka_bootstrap:
        names = {settings.kafka_topic_prefix + topic for topic in topics}
        found[KAFKA] = lambda: _try_kafka(settings, names)
    return found


def _try_postgres(settings: EngineSettings) -> None:
    address = address_of(settings)
    try:
        with psycopg.connect(address, connect_timeout=int(CONNECT_TIMEOUT.total_seconds())) as connection:
            connection.execute("SET LOCAL statement_timeout = '5s'")
            connection.execute("SELECT 1")
    except psycopg.OperationalError as error:
        reason = _why_not_verified(address) if "certificate verify failed" in str(error) else ""
        if not reason:
            raise
        raise psycopg.OperationalError(f"{error}: {reason}") from error


def _why_not_verified(address: str) -> str:
    """Why PostgreSQL's certificate is refused, such as "certificate has expired", which libpq does not say; empty if it is not now."""
    options = conninfo_to_dict(address)
    authorities = str(options.get("sslrootcert") or "system")
    context = ssl.create_default_context(cafile=None if authorities == "system" else authorities)
    context.check_hostname = False
    server = (str(options.get("host")), int(options.get("port") or _POSTGRES_PORT))
    try:
        with socket.create_connection(server, CONNECT_TIMEOUT.total_seconds()) as plain:
            plain.sendall(_POSTGRES_TLS_REQUEST)
            if plain.recv(1) == b"S":
                context.wrap_socket(plain).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:
        return ""
    return ""


def _try_kafka(settings: EngineSettings, topics: set[str]) -> None:
    client = KafkaAdminClient(**Broker.of(settings).connection, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        missing = topics - set(client.list_topics())
    finally:
        client.close()
    if missing:
        raise MissingTopicsError(f"lacks topics: {', '.join(sorted(missing))}")
