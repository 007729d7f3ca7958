"""Uncertain frames in PostgreSQL, until they are uploaded, with the leases of the workers that upload them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vesta_common.clock import Clock
from vesta_common.leases import Lease, Leases
from vesta_common.storage.postgres import Connection, Postgres

from vesta_pipelining.store.statements import queries

LEASE_DURATION = timedelta(minutes=1)
_LEASES = Leases(
    "uncertain_frames", LEASE_DURATION, key=("observation",), order="coalesce(lease_expire_time, create_time)"
)


@dataclass(frozen=True)
class UncertainFrame:
    """A frame to upload for annotation.

    Attributes:
        attempt_count: the number of upload attempts, including the current one.
    """

    lease: Lease
    observation: str
    stream: str
    source: str
    event_id: str
    data: bytes
    content_type: str
    frame_time: datetime
    attempt_count: int
    create_time: datetime


class UncertainFrames:
    """The table of uncertain frames."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self._postgres = postgres
        self._clock = clock

    def count(self, connection: Connection, stream: str) -> int:
        """Counts a stream's frames that wait for upload."""
        return int(queries.count_uncertain_frames(connection, stream=stream))

    def insert(self, connection: Connection, frames: Sequence[dict[str, Any]]) -> None:
        """Inserts frames for upload. Each has the columns of an UncertainFrame from `observation` to `frame_time`."""
        now = self._clock.now()
        for frame in frames:
            queries.insert_uncertain_frame(connection, **frame, now=now)

    def claim(self) -> UncertainFrame | None:
        """Claims the frame that has waited longest; returns None if there is none without a lease."""
        with self._postgres.transaction() as connection:
            lease = _LEASES.claim(connection, self._clock.now())
        if lease is None:
            return None
        row = lease.row
        fields = ("observation", "stream", "source", "event_id", "content_type", "frame_time", "create_time")
        return UncertainFrame(
            lease=lease,
            data=bytes(row["data"]),
            attempt_count=lease.attempt_count,
            **{field: row[field] for field in fields},
        )

    def postpone(self, frame: UncertainFrame, until: datetime) -> None:
        """Releases a frame until its next attempt."""
        with self._postgres.transaction() as connection:
            _LEASES.postpone(connection, frame.lease, until)

    def finish(self, frame: UncertainFrame, item: str) -> None:
        """Deletes a frame. If it became an item, records the item and counts it.

        Raises:
            LeaseLost: another worker has claimed the frame, or it was deleted.
        """

        def work(connection: Connection) -> None:
            queries.lock_stream(connection, name=frame.stream)
            _LEASES.verify(connection, frame.lease)
            queries.delete_uncertain_frame(connection, observation=frame.observation)
            if item:
                queries.set_item(connection, name=frame.observation, item=item)
                queries.count_uncertain(connection, name=frame.stream)

        self._postgres.run(work)
