"""The inbox: discards duplicate events. The event id is recorded in the transaction of the event's effect."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from vesta_common.storage.postgres import Connection

RETENTION = timedelta(days=14)


def new_among(connection: Connection, consumer: str, event_ids: Sequence[str]) -> set[str]:
    """Records the event ids and returns those that are new. A concurrent call with the same ids waits for the first one."""
    with connection.pipeline():  # one round trip with the BEGIN of the transaction
        rows = connection.execute(
            "INSERT INTO inbox (consumer, event_id) SELECT %s, unnest(%s::text[]) ON CONFLICT DO NOTHING RETURNING event_id",
            (consumer, sorted(set(event_ids))),
        )
    return {row["event_id"] for row in rows}


def prune(connection: Connection, now: datetime) -> int:
    """Deletes entries older than 14 days (retention). Returns the number of deleted entries. Older events must not be replayed."""
    return connection.execute("DELETE FROM inbox WHERE handle_time < %s", (now - RETENTION,)).rowcount
