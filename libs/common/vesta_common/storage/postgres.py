"""PostgreSQL: a pool on the service's own schema, transactions that repeat where they may, migrations, named statements."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import resources
from typing import Any, TypeVar

import aiosql
import psycopg
import structlog
from aiosql.adapters.pyformat import PyFormatAdapter
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from vesta_common.settings import EngineSettings, ServiceSettings

T = TypeVar("T")
Connection = psycopg.Connection[DictRow]

STATEMENT_TIMEOUT = timedelta(seconds=60)
POOL_TIMEOUT = timedelta(seconds=10)
CONNECT_TIMEOUT = timedelta(seconds=5)
REPEATS_MAX = 8
# A peer that vanished with its node is noticed within a minute, on both sides: the server then frees its locks.
KEEPALIVE_IDLE = timedelta(seconds=20)
KEEPALIVE_INTERVAL = timedelta(seconds=10)
KEEPALIVES_MAX = 3
MIGRATION_LOCK = 7_305_001
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_MIGRATION_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

log = structlog.get_logger()


def address_of(settings: EngineSettings) -> str:
    """How to reach the database, with the password where that is set by itself."""
    password = settings.postgres_password.get_secret_value()
    return make_conninfo(settings.postgres_url, password=password) if password else settings.postgres_url


class SchemaTooOldError(RuntimeError):
    """A schema lacks migrations, and this process may not apply them."""


class Postgres:
    """A pool of connections whose search path is the service's schema, then `public`. Safe to share between threads.

    Args:
        url: `postgresql://…`.
        schema: the service's own schema; `migrate` makes it.

    Raises:
        ValueError: the schema's name is not lower-case letters, digits and underscores.
    """

    def __init__(self, url: str, schema: str, connections_max: int = 8) -> None:
        if not _SCHEMA_NAME.fullmatch(schema):
            raise ValueError(f"{schema!r} is no name of a schema; use lower-case letters, digits and underscores")
        self.url = url
        self.schema = schema
        options = f"-c search_path={schema},public -c statement_timeout={int(STATEMENT_TIMEOUT.total_seconds() * 1000)}"
        idle, interval = int(KEEPALIVE_IDLE.total_seconds()), int(KEEPALIVE_INTERVAL.total_seconds())
        options += f" -c tcp_keepalives_idle={idle} -c tcp_keepalives_interval={interval} -c tcp_keepalives_count={KEEPALIVES_MAX}"
        self._arguments: dict[str, Any] = {
            "options": options,
            "application_name": f"vesta-{schema}",
            "connect_timeout": int(CONNECT_TIMEOUT.total_seconds()),
            "keepalives_idle": idle,
            "keepalives_interval": interval,
            "keepalives_count": KEEPALIVES_MAX,
            "row_factory": dict_row,
        }
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            kwargs=self._arguments,
            min_size=1,
            max_size=connections_max,
            timeout=POOL_TIMEOUT.total_seconds(),
            check=ConnectionPool.check_connection,
            open=False,
            name=schema,
        )

    @classmethod
    def of(cls, settings: ServiceSettings, service: str) -> "Postgres":
        """The database that the settings name; nothing is sent yet."""
        return cls(address_of(settings), settings.postgres_schema or service, settings.postgres_connections_max)

    def open(self, patience: timedelta = timedelta(minutes=5)) -> "Postgres":
        """Waits until the server answers, then opens the pool."""
        deadline = time.monotonic() + patience.total_seconds()
        while True:
            try:
                self.connect().close()
                break
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("postgres_awaited", error=str(error).strip())
                time.sleep(0.3)
        self._pool.open()
        return self

    def close(self) -> None:
        """Closes the pool."""
        self._pool.close()

    def connect(self, *, autocommit: bool = False) -> Connection:
        """A connection outside the pool, for those who keep it: listeners and locks."""
        return psycopg.connect(self.url, autocommit=autocommit, **self._arguments)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back by an exception."""
        with self._pool.connection() as connection:
            yield connection

    def run(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a transaction, again where PostgreSQL asks for it (40001, 40P01), at most eight times."""
        for repeat in range(REPEATS_MAX):
            try:
                with self.transaction() as connection:
                    return work(connection)
            except (errors.SerializationFailure, errors.DeadlockDetected):
                if repeat == REPEATS_MAX - 1:
                    raise
                time.sleep(0.01 * 2**repeat)
        raise AssertionError("unreachable")

    def migrate_or_check(self, package: str, settings: ServiceSettings) -> None:
        """Applies a service's migrations, or checks that they are applied, as its settings say.

        Raises:
            SchemaTooOldError: the setting is `check`, and one that is no `…_post.sql` is not applied.
            RuntimeError: a migration that was applied has been edited since.
        """
        if settings.migrations == "apply":
            self.migrate(package, post=settings.post_migrations)
        else:
            self.check_migrations(package)

    def check_migrations(self, *packages: str) -> None:
        """Checks that the schema has all that this version needs, without changing it.

        Raises:
            SchemaTooOldError: a migration that is no `…_post.sql` is not applied; suggests what to run.
        """
        with self.connect(autocommit=True) as connection:
            row = connection.execute(
                "SELECT to_regclass(%s) AS record", (f"{self.schema}.schema_migrations",)
            ).fetchone()
            known = set()
            if row is not None and row["record"] is not None:
                statement = sql.SQL("SELECT package, name FROM {}.schema_migrations").format(
                    sql.Identifier(self.schema)
                )
                known = {(row["package"], row["name"]) for row in connection.execute(statement)}
        wanted = ((package, name) for package, name, _ in _wanted(("vesta_common", *packages), post=False))
        missing = [f"{package}/{name}" for package, name in wanted if (package, name) not in known]
        if missing:
            raise SchemaTooOldError(
                f"the schema {self.schema} is too old: {len(missing)} migrations are not applied, the first is {missing[0]}; "
                "run `vesta-admin migrate pre`, or set MIGRATIONS to apply"
            )

    def migrate(self, *packages: str, post: bool = True) -> list[str]:
        """Brings the schema up to date: `vesta_common`'s migrations, then each package's, in order; answers those applied now.

        Any number of replicas may call it at once: one applies, the others wait. All is applied, or nothing.

        Args:
            post: whether those named `…_post.sql` are applied too, which the code before this one could not bear. False while
                replicas of that code still run.

        Raises:
            RuntimeError: a migration that was applied has been edited since.
        """
        applied_now = []
        with self.connect() as connection:
            connection.execute("SET LOCAL statement_timeout = 0")
            connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (MIGRATION_LOCK, self.schema))
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.schema)))
            connection.execute(_CREATE_RECORD)
            known = {
                (row["package"], row["name"]): row["checksum"]
                for row in connection.execute("SELECT package, name, checksum FROM schema_migrations")
            }
            for package, name, statements in _wanted(("vesta_common", *packages), post=post):
                checksum = hashlib.sha256(statements.encode()).hexdigest()
                if known.get((package, name), checksum) != checksum:
                    raise RuntimeError(
                        f"{package} migration {name} was applied and has been edited since; add a new one instead"
                    )
                if (package, name) in known:
                    continue
                connection.execute(statements.encode())
                connection.execute(
                    "INSERT INTO schema_migrations (package, name, checksum) VALUES (%s, %s, %s)",
                    (package, name, checksum),
                )
                applied_now.append(f"{package}/{name}")
        if applied_now:
            log.info("schema_migrated", schema=self.schema, applied=applied_now)
        return applied_now


_CREATE_RECORD = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    package    text,
    name       text,
    checksum   text NOT NULL,   -- SHA-256 of the statements
    apply_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, name)
)
"""


def _wanted(packages: Sequence[str], *, post: bool) -> Iterator[tuple[str, str, str]]:
    """Package, name and statements of what is to be applied, in order."""
    for package in packages:
        for name, statements in migrations_of(package):
            if post or not name.endswith("_post.sql"):
                yield package, name, statements


def migrations_of(package: str) -> list[tuple[str, str]]:
    """A package's migrations as (name, SQL) in order.

    Raises:
        ValueError: a file is not named `NNNN_what.sql`, or two have the same number.
    """
    folder = resources.files(package) / "migrations"
    found: dict[str, tuple[str, str]] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".sql"):
            matched = _MIGRATION_NAME.fullmatch(entry.name)
            if not matched:
                raise ValueError(f"{package}/migrations/{entry.name} is not named NNNN_what.sql")
            if matched[1] in found:
                raise ValueError(
                    f"{package}/migrations has {entry.name} and {found[matched[1]][0]}: one number, two files"
                )
            found[matched[1]] = (entry.name, entry.read_text())
    return list(found.values())


def load_queries(package: str) -> Any:
    """The statements of a package's `queries.sql`, by name: `queries.find_task(connection, name=…)`.

    `^` answers one row or None, `$` one value, `!` the number of rows, `*!` runs once for each of a list; a plain one answers
    a list of rows. A per cent sign in the SQL is written twice.
    """
    statements = (resources.files(package) / "queries.sql").read_text()
    return aiosql.from_str(statements, _RowsAtOnce, mandatory_parameters=False)


class _RowsAtOnce(PyFormatAdapter):
    """Runs plain statements when they are called; aiosql's own generators would when, and only if, somebody iterates."""

    def select(self, *arguments: Any) -> list[Any]:  # type: ignore[override]
        return list(super().select(*arguments))
