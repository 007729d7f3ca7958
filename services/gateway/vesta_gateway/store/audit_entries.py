"""The audit log in PostgreSQL: inserts, paginated reads, and deletion after the retention period."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vesta_common.messages import set_times
from vesta_common.resources.pages import Page
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.gateway.v1 import AuditEntry, AuditEntryFilter

from vesta_gateway.store.statements import PRUNE_BATCH_MAX, queries

_SAME = (
    "id", "caller", "api_key", "role", "method", "resource", "update_mask", "request_sha256", "code", "reason", "address", "protocol",
    "request_id",
)  # fmt: skip


@dataclass(frozen=True)
class AuditRow:
    """A row of the audit log. `vesta.gateway.v1.AuditEntry` documents the fields.

    Attributes:
        project: the project id; empty if the call is not in a project.
    """

    id: str
    create_time: datetime
    project: str
    caller: str
    api_key: str
    role: str
    method: str
    resource: str
    update_mask: Sequence[str]
    request_sha256: str
    code: str
    reason: str
    address: str
    protocol: str
    request_id: str


def add(postgres: Postgres, rows: Sequence[AuditRow]) -> None:
    """Inserts rows in one transaction."""
    with postgres.transaction() as connection:
        queries.insert_audit_entry(connection, [asdict(row) for row in rows])


def list_page(
    connection: Connection, project: str | None, requested: AuditEntryFilter, page: Page
) -> tuple[list[AuditEntry], str]:
    """Returns a page of entries, newest first, and the token of the next page.

    Args:
        project: a project id; None for the entries of all projects and those without a project.
    """
    rows = queries.list_audit_entries(
        connection,
        project=project,
        before=page.after,
        caller=requested.caller,
        resource_prefix=requested.resource_prefix,
        method=requested.method,
        code=requested.code,
        start_time=requested.start_time.ToDatetime(UTC) if requested.HasField("start_time") else None,
        end_time=requested.end_time.ToDatetime(UTC) if requested.HasField("end_time") else None,
        limit=page.limit,
    )
    page_rows, token = page.cut(rows, lambda row: (row["id"],))
    return [_entry(row) for row in page_rows], token


def prune(
    postgres: Postgres, now: datetime, retention: timedelta, is_stopping: Callable[[], bool] = lambda: False
) -> int:
    """Deletes entries older than `retention` in batches, each in its own transaction. Returns the number of deleted entries. Blocks."""
    deleted, batch = 0, PRUNE_BATCH_MAX
    while batch == PRUNE_BATCH_MAX and not is_stopping():
        with postgres.transaction() as connection:
            batch = queries.delete_old_audit_entries(connection, before=now - retention, limit=PRUNE_BATCH_MAX)
        deleted += batch
    return deleted


def _entry(row: dict[str, Any]) -> AuditEntry:
    entry = AuditEntry(**{field: row[field] for field in _SAME})
    set_times(entry, {"time": row["create_time"]}, "time")
    return entry
