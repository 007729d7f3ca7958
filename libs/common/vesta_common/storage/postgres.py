"""PostgreSQL access: a connection pool on the service's schema, transactions with retries, migrations, named queries."""

import hashlib
import re
import select
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

from vesta_common.backoff import exponential_backoff
from vesta_common.settings import EngineSettings, ServiceSettings

T = TypeVar("T")
Connection = psycopg.Connection[DictRow]

STATEMENT_TIMEOUT = timedelta(seconds=60)
POOL_TIMEOUT = timedelta(seconds=10)
CONNECT_TIMEOUT = timedelta(seconds=5)
REPEATS_MAX = 8
REPEAT_BACKOFF_FIRST = timedelta(milliseconds=10)
REPEAT_BACKOFF_MAX = timedelta(seconds=1)
# Both sides detect a vanished peer within a minute. The server then releases its locks.
KEEPALIVE_IDLE = timedelta(seconds=20)
KEEPALIVE_INTERVAL = timedelta(seconds=10)
KEEPALIVES_MAX = 3
MIGRATION_LOCK = 7_305_001
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_MIGRATION_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

log = structlog.get_logger()


def address_of(settings: EngineSettings) -> str:
    """Returns the connection string of the database, with the separate password setting if it is set."""
    password = settings.postgres_password.get_secret_value()
    return make_conninfo(settings.postgres_url, password=password) if password else settings.postgres_url


class SchemaTooOldError(RuntimeError):
    """The schema lacks migrations that this process may not apply."""


class Postgres:
    """A connection pool whose search path is the service's schema, then `public`. Thread-safe.

    Args:
        url: `postgresql://…`.
        schema: the service's schema; `migrate` creates it.
        custom_plans: whether each statement is planned for its values. A plan that suits a dataset of average size reads all datasets for a
            small one. Where no rows are so uneven, PostgreSQL may keep plans, which saves a tenth of the time of a small transaction.

    Raises:
        ValueError: the schema name contains characters other than lower-case letters, digits and underscores.
    """

    def __init__(self, url: str, schema: str, connections_max: int = 8, *, custom_plans: bool = True) -> None:
        if not _SCHEMA_NAME.fullmatch(schema):
            raise ValueError(f"{schema!r} is not a schema name; use lower-case letters, digits and underscores")
        self.url = url
        self.schema = schema
        options = f"-c search_path={schema},public -c statement_timeout={int(STATEMENT_TIMEOUT.total_seconds() * 1000)}"
        options += f" -c plan_cache_mode={'force_custom_plan' if custom_plans else 'auto'}"
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
            check=_check_connection,
            open=False,
            name=schema,
        )

    @classmethod
    def of(cls, settings: ServiceSettings, service: str, *, custom_plans: bool = True) -> "Postgres":
        """Creates the pool from the settings. Does not connect."""
        schema = settings.postgres_schema or service
        return cls(address_of(settings), schema, settings.postgres_connections_max, custom_plans=custom_plans)

    def open(self, patience: timedelta = timedelta(minutes=5)) -> "Postgres":
        """Waits until the server responds, then opens the pool."""
        deadline = time.monotonic() + patience.total_seconds()
        while True:
            try:
                self.connect().close()
                break
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("postgres_connection_retried", error=str(error).strip())
                time.sleep(0.3)
        self._pool.open()
        return self

    def close(self) -> None:
        self._pool.close()

    def connect(self, *, autocommit: bool = False) -> Connection:
        """Opens a connection outside the pool, for long-lived use such as LISTEN and advisory locks."""
        return psycopg.connect(self.url, autocommit=autocommit, **self._arguments)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Runs the block in a transaction: committed at the end, rolled back on an exception."""
        with self._pool.connection() as connection:
            yield connection

    @contextmanager
    def point_in_time(self) -> Iterator[Connection]:
        """Runs the block in a transaction whose statements all see the database as it is at the first of them, and change nothing."""
        with self.transaction() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection

    def run(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a transaction. Retries serialization failures and deadlocks (40001, 40P01), with at most eight attempts."""
        for repeat in range(REPEATS_MAX):
            try:
                with self.transaction() as connection:
                    return work(connection)
            except (errors.SerializationFailure, errors.DeadlockDetected):
                if repeat == REPEATS_MAX - 1:
                    raise
                time.sleep(exponential_backoff(repeat + 1, REPEAT_BACKOFF_FIRST, REPEAT_BACKOFF_MAX).total_seconds())
        raise AssertionError("unreachable")

    def migrate_or_check(self, package: str, settings: ServiceSettings) -> None:
        """Applies a service's migrations, or checks that they are applied, depending on the settings.

        Raises:
            SchemaTooOldError: the setting is `check`, and a migration other than `…_post.sql` is not applied.
            RuntimeError: an applied migration was edited.
        """
        if settings.migrations == "apply":
            self.migrate(package, post=settings.post_migrations)
        else:
            self.check_migrations(package)

    def ping(self) -> None:
        """Raises psycopg.Error or psycopg_pool.PoolTimeout if the database does not respond."""
        with self.transaction() as connection:
            connection.execute("SELECT 1")

    def check_migrations(self, *packages: str) -> None:
        """Checks that the schema has the migrations that this version requires. Changes nothing.

        Raises:
            SchemaTooOldError: a migration other than `…_post.sql` is not applied; the message suggests a fix.
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
        required = ((package, name) for package, name, _ in _wanted(("vesta_common", *packages), post=False))
        missing = [f"{package}/{name}" for package, name in required if (package, name) not in known]
        if missing:
            raise SchemaTooOldError(
                f"the schema {self.schema} is out of date: {len(missing)} migrations are not applied, "
                f"the first is {missing[0]}; run `vesta-admin migrate pre`, or set MIGRATIONS to apply"
            )

    def migrate(self, *packages: str, post: bool = True) -> list[str]:
        """Applies missing migrations: those of `vesta_common`, then those of each package, in order. Returns the ones applied now.

        Replicas may call it concurrently: one applies the migrations, the others wait. All are applied in one transaction.

        Args:
            post: whether to apply `…_post.sql` migrations too, which are incompatible with the previous version. False while replicas of
                that version are running.

        Raises:
            RuntimeError: an applied migration was edited.
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
                        f"the applied migration {name} of {package} was edited; restore it and add a new migration"
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


def _check_connection(connection: Connection) -> None:
    """Checks a pooled connection that has something to read, without a round trip for all others: an idle connection receives nothing until
    the server closes it.

    Raises:
        psycopg.Error: the connection is closed.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        ConnectionPool.check_connection(connection)


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
    """Yields package, name and SQL of the required migrations, in order."""
    for package in packages:
        for name, statements in migrations_of(package):
            if post or not name.endswith("_post.sql"):
                yield package, name, statements


def migrations_of(package: str) -> list[tuple[str, str]]:
    """Returns the migrations of a package as (name, SQL), in order.

    Raises:
        ValueError: a file is not named `NNNN_what.sql`, or two have the same number.
    """
    folder = resources.files(package) / "migrations"
    migrations: dict[str, tuple[str, str]] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".sql"):
            matched = _MIGRATION_NAME.fullmatch(entry.name)
            if not matched:
                raise ValueError(f"{package}/migrations/{entry.name} is not named NNNN_what.sql")
            if matched[1] in migrations:
                raise ValueError(
                    f"{package}/migrations has two files with one number: {entry.name} and {migrations[matched[1]][0]}"
                )
            migrations[matched[1]] = (entry.name, entry.read_text())
    return list(migrations.values())


def load_queries(package: str) -> Any:
    """Loads the queries of a package's `queries.sql` by name: `queries.find_task(connection, name=…)`.

    The suffix of a query name selects the result: `^` one row or None, `$` one value, `!` the number of affected rows, `*!` executes once
    per list entry; no suffix returns a list of rows. In the SQL, a percent sign is written twice.
    """
    statements = (resources.files(package) / "queries.sql").read_text()
    return aiosql.from_str(statements, _RowsAtOnce, mandatory_parameters=False)


class _RowsAtOnce(PyFormatAdapter):
    """Executes queries when they are called. aiosql's own generators would execute them only when they are iterated."""

    def select(self, *arguments: Any) -> list[Any]:  # type: ignore[override]
        return list(super().select(*arguments))
