"""Schemas brought up to date once, transactions repeated where PostgreSQL asks, statements that run when they are called."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import errors
from vesta_common.storage.postgres import Connection, Postgres, load_queries, migrations_of

Package = Callable[..., str]


@pytest.fixture
def postgres(postgres_url: str, postgres_schema: str) -> Iterator[Postgres]:
    postgres = Postgres(postgres_url, postgres_schema, connections_max=8).open(timedelta(seconds=10))
    yield postgres
    postgres.close()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Makes an importable package with these migrations, by file name; answers its name."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"package_{uuid.uuid4().hex}"

    def make(queries: str = "", **migrations: str) -> str:
        folder = tmp_path / name / "migrations"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "queries.sql").write_text(queries)
        for file, statements in migrations.items():
            (folder / f"{file.removeprefix('m')}.sql").write_text(statements)
        return name

    return make


def test_migrations_are_applied_once_in_order(postgres: Postgres, package: Package) -> None:
    name = package(m0001_pots="CREATE TABLE pots (id int)", m0002_lids="ALTER TABLE pots ADD lid text")
    assert postgres.migrate(name)[-2:] == [f"{name}/0001_pots.sql", f"{name}/0002_lids.sql"]
    assert postgres.migrate(name) == []
    package(m0003_more="INSERT INTO pots VALUES (1, 'round')")
    assert postgres.migrate(name) == [f"{name}/0003_more.sql"]
    with postgres.transaction() as connection:
        assert connection.execute("SELECT id, lid FROM pots").fetchall() == [{"id": 1, "lid": "round"}]


def test_replicas_that_start_at_once_apply_each_migration_once(
    postgres_url: str, postgres_schema: str, package: Package
) -> None:
    name = package(m0001_pots="CREATE TABLE pots (id int)")

    def migrate(_: int) -> int:
        return len(Postgres(postgres_url, postgres_schema).migrate(name))

    with ThreadPoolExecutor(4) as threads:
        applied = sorted(threads.map(migrate, range(4)))
    assert applied[:3] == [0, 0, 0]
    assert applied[3] >= 4


def test_an_edited_migration_is_an_error_that_says_so(postgres: Postgres, package: Package) -> None:
    name = package(m0001_pots="CREATE TABLE pots (id int)")
    postgres.migrate(name)
    package(m0001_pots="CREATE TABLE pots (id bigint)")
    with pytest.raises(RuntimeError, match=r"migration 0001_pots\.sql .* was edited"):
        postgres.migrate(name)


def test_a_failing_migration_leaves_nothing_behind(postgres: Postgres, package: Package) -> None:
    name = package(m0001_pots="CREATE TABLE pots (id int)", m0002_wrong="CREATE TABLE nonsense (")
    with pytest.raises(errors.SyntaxError):
        postgres.migrate(name)
    package(m0002_wrong="SELECT 1")
    assert len(postgres.migrate(name)) >= 5


def test_post_migrations_wait_until_the_old_code_is_gone(postgres: Postgres, package: Package) -> None:
    name = package(
        m0001_pots="CREATE TABLE pots (old int)",
        m0002_drop_post="ALTER TABLE pots DROP old",
        m0003_new="ALTER TABLE pots ADD new int",
    )
    assert postgres.migrate(name, post=False)[-2:] == [f"{name}/0001_pots.sql", f"{name}/0003_new.sql"]
    assert postgres.migrate(name)[-1:] == [f"{name}/0002_drop_post.sql"]


@pytest.mark.parametrize("names", [["m1_pots"], ["m0001_Pots"], ["m0001_pots", "m0001_lids"]])
def test_migrations_without_a_number_of_their_own_are_refused(package: Package, names: list[str]) -> None:
    with pytest.raises(ValueError, match="migrations"):
        migrations_of(package(**dict.fromkeys(names, "SELECT 1")))


def test_schemas_do_not_see_each_other(postgres_url: str, postgres_schema: str, package: Package) -> None:
    name = package(m0001_pots="CREATE TABLE pots (id int)")
    one, other = (Postgres(postgres_url, f"{postgres_schema}_{word}").open() for word in ("one", "other"))
    for postgres in (one, other):
        postgres.migrate(name)
    with one.transaction() as connection:
        connection.execute("INSERT INTO pots VALUES (1)")
    with other.transaction() as connection:
        assert connection.execute("SELECT count(*) AS n FROM pots").fetchone() == {"n": 0}
    one.close()
    other.close()


@pytest.mark.parametrize("name", ["Vesta", "a-b", "x; DROP SCHEMA public", ""])
def test_strange_schema_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        Postgres("postgresql://unused", name)


def test_an_exception_undoes_the_transaction(postgres: Postgres, package: Package) -> None:
    postgres.migrate(package(m0001_pots="CREATE TABLE pots (id int)"))

    def work(connection: Connection) -> None:
        connection.execute("INSERT INTO pots VALUES (1)")
        raise KeyError

    with pytest.raises(KeyError):
        postgres.run(work)
    with postgres.transaction() as connection:
        assert connection.execute("SELECT * FROM pots").fetchall() == []


def test_work_that_cannot_be_serialised_is_repeated(postgres: Postgres, package: Package) -> None:
    postgres.migrate(package(m0001_pots="CREATE TABLE pots (id int, count int); INSERT INTO pots VALUES (1, 0)"))
    first_attempts = threading.Barrier(4)
    attempts: list[int] = []

    def add_one(worker: int) -> None:
        def work(connection: Connection) -> None:
            connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            row = connection.execute("SELECT count FROM pots").fetchone()
            if worker not in attempts:
                attempts.append(worker)
                first_attempts.wait(10)
            else:
                attempts.append(worker)
            assert row is not None
            connection.execute("UPDATE pots SET count = %s", (row["count"] + 1,))

        postgres.run(work)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add_one, range(4)))
    with postgres.transaction() as connection:
        assert connection.execute("SELECT count FROM pots").fetchone() == {"count": 4}
    assert len(attempts) > 4


def test_other_failures_are_not_repeated(postgres: Postgres) -> None:
    calls: list[int] = []

    def work(connection: Connection) -> None:
        calls.append(1)
        connection.execute("SELECT 1 / 0")

    with pytest.raises(errors.DivisionByZero):
        postgres.run(work)
    assert len(calls) == 1


def test_a_client_that_vanished_is_noticed_by_the_server_within_a_minute(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        shown = [
            int(connection.execute(f"SHOW tcp_keepalives_{name}").fetchone()[f"tcp_keepalives_{name}"])  # type: ignore[index]
            for name in ("idle", "interval", "count")
        ]
    idle, interval, count = shown
    assert 0 < idle + interval * count <= 60


def test_a_killed_connection_costs_the_pool_nothing(postgres: Postgres) -> None:
    with postgres.transaction() as connection:
        backend = connection.info.backend_pid
    with postgres.connect(autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", (backend,))
    for _ in range(3):
        with postgres.transaction() as connection:
            assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}


def test_statements_are_called_by_name_and_run_when_called(postgres: Postgres, package: Package) -> None:
    name = package(
        queries="""
-- name: insert_pot!
INSERT INTO pots VALUES (:id, :lid);
-- name: insert_pots
INSERT INTO pots SELECT unnest(:ids::int[]), 'flat' RETURNING id;
-- name: find_pot^
SELECT * FROM pots WHERE id = :id;
-- name: count_pots$
SELECT count(*) FROM pots;
-- name: list_pots
SELECT id FROM pots WHERE lid LIKE 'fl%%' ORDER BY id;
""",
        m0001_pots="CREATE TABLE pots (id int, lid text)",
    )
    postgres.migrate(name)
    queries = load_queries(name)
    with postgres.transaction() as connection:
        assert queries.insert_pot(connection, id=1, lid="round") == 1
        queries.insert_pots(connection, ids=[2, 3])
        assert queries.find_pot(connection, id=1) == {"id": 1, "lid": "round"}
        assert queries.find_pot(connection, id=9) is None
        assert queries.count_pots(connection) == 3
        assert queries.list_pots(connection) == [{"id": 2}, {"id": 3}]


def test_a_server_that_is_away_is_waited_for_only_so_long() -> None:
    with pytest.raises(psycopg.OperationalError):
        Postgres("postgresql://127.0.0.1:9/nothing", "vesta").open(timedelta(seconds=0.5))
