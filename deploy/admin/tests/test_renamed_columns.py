"""Renamed columns: until the post migration, replicas of the previous version use the old name, and those of this version the new one."""

from dataclasses import dataclass

import pytest
from vesta_common.storage.postgres import Postgres, migrations_of


@dataclass(frozen=True)
class Rename:
    """A renamed column.

    Attributes:
        migration: adds the new column; the next migration, a post migration, drops the old one.
        setup: SQL that makes what a row needs.
        write: SQL that writes `{value}` to `{column}` of the table's only or newest row.
        values: written one after the other: before the migration, by the old name, and by the new name.
    """

    package: str
    migration: str
    table: str
    old: str
    new: str
    setup: str
    write: str
    values: tuple[str, str, str]


def updated(package: str, migration: str, names: str, setup: str, *values: str) -> Rename:
    """Returns the rename of a column that updates change, given as `table.old new`."""
    table, _, columns = names.partition(".")
    old, new = columns.split()
    return Rename(package, migration, table, old, new, setup, f"UPDATE {table} SET {{column}} = {{value}}", values)  # type: ignore[arg-type]


_DATASET = """
INSERT INTO taxonomies VALUES ('t', 'p', '', now(), now());
INSERT INTO datasets (name, parent, taxonomy, body, create_time, update_time) VALUES ('d', 'p', 't', '', now(), now())
"""
_SYNC = """
INSERT INTO sources (name, parent, body, create_time, update_time) VALUES ('s', 'p', '', now(), now());
INSERT INTO syncs (name, source, state, create_time) VALUES ('y', 's', 'RUNNING', now())
"""
_STREAM = """
INSERT INTO pipelines (name, parent, body, create_time, update_time) VALUES ('p', 'a', '', now(), now());
INSERT INTO streams (name, pipeline, display_name, create_time) VALUES ('s', 'p', '', now())
"""
_INSERT_AUDIT_ENTRY = """
INSERT INTO audit_entries (id, create_time, project, caller, api_key, role, method, resource, update_mask, request_sha256, code, reason,
    address, request_id, {column})
VALUES ((SELECT count(*) FROM audit_entries), now(), '', '', '', '', '', '', '{{}}', '', '', '', '', '', {value})
"""
RENAMES = [
    updated(
        *("vesta_datasets", "0012_published_progress.sql", "datasets.told_prediction_count published_prediction_count"),
        *(_DATASET, "3", "7", "8"),
    ),
    updated(
        *("vesta_datasets", "0012_published_progress.sql", "datasets.told_time publish_time"),
        *(_DATASET, "timestamptz '2026-01-03Z'", "timestamptz '2026-01-07Z'", "timestamptz '2026-01-08Z'"),
    ),
    updated(
        *("vesta_connection", "0005_rejections.sql", "syncs.refused_count rejected_count"),
        *(_SYNC, "3", "7", "8"),
    ),
    updated(
        *("vesta_connection", "0005_rejections.sql", "syncs.refusals rejections"),
        *(_SYNC, "jsonb '[1]'", "jsonb '[1, 2]'", "jsonb '[1, 2, 3]'"),
    ),
    updated(
        *("vesta_pipelining", "0006_rejected_count.sql", "streams.refused_count rejected_count"),
        *(_STREAM, "3", "7", "8"),
    ),
    Rename(
        *("vesta_gateway", "0004_audit_protocol.sql", "audit_entries", "door", "protocol"),
        *("SELECT 1", _INSERT_AUDIT_ENTRY, ("'rest'", "'grpc'", "'rest'")),
    ),
]


@pytest.mark.parametrize("rename", RENAMES, ids=[rename.old for rename in RENAMES])
def test_both_versions_read_what_either_wrote_until_the_post_migration(
    postgres_url: str, postgres_schema: str, rename: Rename
) -> None:
    migrations = dict(migrations_of(rename.package))
    names = list(migrations)
    at = names.index(rename.migration)
    postgres = Postgres(postgres_url, postgres_schema).open()
    with postgres.connect() as connection:

        def write(column: str, value: str) -> None:
            connection.execute(rename.write.format(column=column, value=value).encode())

        def newest_is(value: str) -> bool:
            """Returns whether both columns of the row that was written last have a value."""
            (row,) = connection.execute(
                f"SELECT {rename.old} = {value} AND {rename.new} = {value} AS equal FROM {rename.table} ORDER BY ctid DESC LIMIT 1".encode()
            )
            return bool(row["equal"])

        before, by_old, by_new = rename.values
        connection.execute(f"CREATE SCHEMA {postgres_schema}".encode())
        for name in names[:at]:
            connection.execute(migrations[name].encode())
        connection.execute(rename.setup.encode())
        write(rename.old, before)
        connection.execute(migrations[rename.migration].encode())
        assert newest_is(before)
        write(rename.old, by_old)
        assert newest_is(by_old)
        write(rename.new, by_new)
        assert newest_is(by_new)

        assert names[at + 1].endswith("_post.sql")
        connection.execute(migrations[names[at + 1]].encode())
        (row,) = connection.execute(f"SELECT * FROM {rename.table} ORDER BY ctid DESC LIMIT 1".encode())
        assert rename.new in row
        assert rename.old not in row
    postgres.close()
