"""Drops repeats: a consumer's event is recorded in the transaction of its effect."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from vesta_common.storage.postgres import Connection

KEEP = timedelta(days=14)


def new_among(connection: Connection, consumer: str, event_ids: Sequence[str]) -> set[str]:
    """Records the events; returns those that were not handled before. A second handler at the same time waits for the first."""
    rows = connection.execute(
        "INSERT INTO inbox (consumer, event_id) SELECT %s, unnest(%s::text[]) ON CONFLICT DO NOTHING RETURNING event_id",
        (consumer, sorted(set(event_ids))),
    )
    return {row["event_id"] for row in rows}


def prune(connection: Connection, now: datetime) -> int:
    """Forgets events handled more than 14 days ago; answers how many. Older ones must not be replayed."""
    return connection.execute("DELETE FROM inbox WHERE handle_time < %s", (now - KEEP,)).rowcount
