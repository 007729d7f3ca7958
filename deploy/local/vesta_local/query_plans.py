"""For tests: the work of SQL statements for a small tenant beside a large one, from the executed plans of PostgreSQL."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import sql
from vesta_common.storage.postgres import Connection

MILLION = 1_000_000
ROWS_MAX = 1_000
BLOCKS_MAX = 600
_PARAMETER = re.compile(r"%\((\w+)\)[sb]")
_REMOVED = ("Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter")


class Work(NamedTuple):
    """The work of a statement.

    Attributes:
        rows: rows that its scans found or discarded, without those of triggers.
        blocks: blocks of 8 KiB that it read, from the cache or not.
        scanned: the tables that it scanned without an index.
        plan: the nodes of the plan, for the error message.
    """

    rows: int
    blocks: int
    scanned: tuple[str, ...]
    plan: str


def set_row_count(connection: Connection, tables: Sequence[str], rows: int = MILLION) -> None:
    """Vacuums and analyzes tables, and makes the planner believe that each has so many rows, in the present proportions.

    Outside of a transaction, and as a superuser.
    """
    connection.autocommit = True
    for table in tables:
        name = sql.Identifier(table)
        connection.execute(sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = false)").format(name))
        connection.execute(sql.SQL("VACUUM ANALYZE {}").format(name))
        connection.execute("UPDATE pg_class SET reltuples = %s WHERE oid = %s::regclass", (rows, table))
    connection.autocommit = False


def work_of(connection: Connection, statement: str, values: Mapping[str, Any]) -> Work:
    """Executes a statement in a transaction that is rolled back, and returns its work."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF, FORMAT JSON) {statement}"
    with connection.transaction(force_rollback=True):
        row = connection.execute(explain.encode(), values, prepare=False).fetchone()
    assert row is not None
    plan = row["QUERY PLAN"][0]["Plan"]
    nodes = list(_nodes(plan))
    scans = [node for node in nodes if "Scan" in node["Node Type"]]
    return Work(
        rows=round(sum(_rows(node) for node in scans)),
        blocks=plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0),
        scanned=tuple(node["Relation Name"] for node in scans if node["Node Type"] == "Seq Scan"),
        plan="; ".join(
            f"{node['Node Type']} {node.get('Index Name', node.get('Relation Name', ''))} {_rows(node):g}"
            for node in nodes
        ),
    )


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _rows(node: Mapping[str, Any]) -> float:
    return float(sum(node.get(key, 0) for key in ("Actual Rows", *_REMOVED)) * node.get("Actual Loops", 1))


def excesses(
    connection: Connection,
    statements: Mapping[str, str],
    values: Mapping[str, Any],
    large: Collection[str],
    rows_max: int = ROWS_MAX,
) -> list[str]:
    """Returns a sentence for each statement that does more work than a small tenant causes.

    Args:
        statements: SQL with named parameters, by name.
        values: of all parameters, by name, as of the small tenant.
        large: the tables of which the small tenant has few rows, and another tenant many.

    Raises:
        KeyError: a parameter has no value.
    """
    complaints = []
    for name, statement in statements.items():
        work = work_of(connection, statement, {key: values[key] for key in _PARAMETER.findall(statement)})
        scanned = set(work.scanned) & set(large)
        if scanned or work.rows > rows_max or work.blocks > BLOCKS_MAX:
            complaints.append(
                f"{name} scans {work.rows} rows, {work.blocks} blocks and all of {sorted(scanned)}: {work.plan}"
            )
    return complaints


def statement_of_call(call: Callable[[Any], object]) -> tuple[str, dict[str, Any]]:
    """Returns the statement, with its values, that a method of a store executes on the connection that `call` passes to it."""
    recorder = _Recorder()
    call(recorder)
    ((statement, values),) = recorder.executed
    return statement.decode(), values


class _Recorder:
    """A connection whose statements return no rows."""

    def __init__(self) -> None:
        self.executed: list[tuple[bytes, dict[str, Any]]] = []

    def execute(self, statement: bytes, values: dict[str, Any]) -> "_NoRows":
        self.executed.append((statement, values))
        return _NoRows()


class _NoRows(list[Any]):
    def fetchall(self) -> list[Any]:
        return []


def named_statements(queries: Any) -> dict[str, str]:
    """Returns the statements of a `queries.sql` by name."""
    return {name: getattr(queries, name).sql for name in queries.available_queries if not name.endswith("_cursor")}
