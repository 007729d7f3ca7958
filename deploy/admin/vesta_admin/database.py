"""Creates the database and its extensions, and applies the migrations of every service."""

from importlib.util import find_spec

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from vesta_common.storage.postgres import CONNECT_TIMEOUT, Postgres

EXTENSIONS = ("vector", "pg_trgm")
SERVICES = ("annotation", "conductor", "connection", "datasets", "gateway", "pipelining", "serving", "training")
MAINTENANCE_DATABASE = "postgres"

log = structlog.get_logger()


def create_database(url: str) -> list[str]:
    """Creates the database that the URL names, and in it the extensions; returns what was created.

    Raises:
        psycopg.OperationalError: the server does not respond.
        RuntimeError: the server rejects the request; the message suggests a fix.
    """
    created = []
    name = str(conninfo_to_dict(url).get("dbname", ""))
    if not _exists(url):
        try:
            with _connect(make_conninfo(url, dbname=MAINTENANCE_DATABASE)) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            created.append(f"database {name}")
        except psycopg.errors.DuplicateDatabase:
            pass
        except psycopg.errors.InsufficientPrivilege as error:
            raise RuntimeError(
                f"the PostgreSQL user may not create the database {name}; ask an administrator to "
                f"run: CREATE DATABASE {name}"
            ) from error
    with _connect(url) as connection:
        created += [f"extension {name}" for name in EXTENSIONS if _create_extension(connection, name)]
    return created


def _exists(url: str) -> bool:
    try:
        _connect(url).close()
    except psycopg.OperationalError as error:
        # libpq has no SQLSTATE for a failed connection. Therefore the maintenance database is queried for whether the database exists.
        try:
            with _connect(make_conninfo(url, dbname=MAINTENANCE_DATABASE)) as connection:
                name = conninfo_to_dict(url).get("dbname")
                row = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        except psycopg.OperationalError:
            raise error from None
        if row:
            raise
        return False
    return True


def _create_extension(connection: psycopg.Connection, name: str) -> bool:
    if connection.execute("SELECT 1 FROM pg_extension WHERE extname = %s", (name,)).fetchone():
        return False
    statement = sql.SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA public").format(sql.Identifier(name))
    try:
        connection.execute(statement)
    except psycopg.errors.UndefinedFile as error:
        raise RuntimeError(
            f"PostgreSQL does not have the extension {name}; install it on the server (pgvector "
            "for vector, contrib for pg_trgm)"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise RuntimeError(
            f"the PostgreSQL user may not create the extension {name}; ask a superuser to run: CREATE EXTENSION {name}"
        ) from error
    return True


def _connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True, connect_timeout=int(CONNECT_TIMEOUT.total_seconds()))


def migrate(url: str, *, post: bool) -> list[str]:
    """Applies the migrations of every service to its schema; returns those applied now, as `schema: package/name`.

    Args:
        post: whether to apply also the migrations that replicas of the previous version are not compatible with.

    Raises:
        RuntimeError: the package of a service is not installed, or an applied migration has been edited.
    """
    missing = [service for service in SERVICES if find_spec(f"vesta_{service}") is None]
    if missing:
        raise RuntimeError(
            f"not installed: {', '.join(f'vesta_{service}' for service in missing)}; install every service's package "
            "(without its dependencies is enough)"
        )
    applied = []
    for service in SERVICES:
        names = Postgres(url, service).migrate(f"vesta_{service}", post=post)
        applied += [f"{service}: {name}" for name in names]
    return applied
