"""Pipelines, streams and observations in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vesta_common import outbox
from vesta_common.clock import Clock
from vesta_common.errors import NotFound
from vesta_common.etags import with_etag
from vesta_common.events import new_event
from vesta_common.filters import Where
from vesta_common.postgres import Connection, Postgres, load_queries
from vesta_contracts.pipelining.v1 import Observation, ObservationMade, Pipeline, Stream

SERVICE = "pipelining"

queries = load_queries("vesta_pipelining")


@dataclass(frozen=True)
class UncertainFrame:
    """A frame on its way to the dataset."""

    observation: str
    stream: str
    source: str
    event_id: str
    frame_time: datetime
    data: bytes


@dataclass
class Tally:
    """What became of a stream's frames in one batch."""

    observed_count: int = 0
    dropped_count: int = 0
    refused_count: int = 0
    lag_seconds: float | None = None
    last_frame_time: datetime | None = None


class Store:
    """The service's tables."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self.postgres = postgres
        self.clock = clock

    def insert_pipeline(self, connection: Connection, pipeline: Pipeline) -> None:
        """Keeps a new pipeline. Raises psycopg.errors.UniqueViolation where the name is taken."""
        queries.insert_pipeline(
            connection,
            name=pipeline.name,
            parent="/".join(pipeline.name.split("/")[:2]),
            body=_body(pipeline),
            now=self.clock.now(),
        )

    def get_pipeline(self, connection: Connection, name: str, *, lock: bool = False) -> Pipeline:
        """A pipeline. Raises NotFound."""
        find = queries.lock_pipeline if lock else queries.find_pipeline
        return _pipeline(_found(find(connection, name=name), name))

    def list_pipelines(self, connection: Connection, parent: str, after: str, limit: int) -> list[Pipeline]:
        """A project's pipelines after a name, by name."""
        return [_pipeline(row) for row in queries.list_pipelines(connection, parent=parent, after=after, limit=limit)]

    def update_pipeline(self, connection: Connection, pipeline: Pipeline) -> None:
        """Keeps a changed pipeline."""
        queries.update_pipeline(connection, name=pipeline.name, body=_body(pipeline), now=self.clock.now())

    def delete_pipeline(self, connection: Connection, name: str) -> None:
        """Removes a pipeline with its streams and observations."""
        queries.delete_pipeline(connection, name=name)

    def insert_stream(self, connection: Connection, stream: Stream) -> None:
        """Keeps a new stream. Raises psycopg.errors.UniqueViolation where the name is taken."""
        queries.insert_stream(
            connection,
            name=stream.name,
            pipeline="/".join(stream.name.split("/")[:4]),
            display_name=stream.display_name,
            now=self.clock.now(),
        )

    def get_stream(self, connection: Connection, name: str) -> Stream:
        """A stream with its figures. Raises NotFound."""
        return _stream(_found(queries.find_stream(connection, name=name), name))

    def list_streams(self, connection: Connection, pipeline: str, after: str, limit: int) -> list[Stream]:
        """A pipeline's streams after a name, by name."""
        return [_stream(row) for row in queries.list_streams(connection, pipeline=pipeline, after=after, limit=limit)]

    def delete_stream(self, connection: Connection, name: str) -> None:
        """Removes a stream with its observations."""
        queries.delete_stream(connection, name=name)

    def routes(self, connection: Connection, names: Sequence[str]) -> dict[str, Pipeline]:
        """The pipelines of those streams that there are, by the stream's name."""
        rows = queries.find_routes(connection, names=list(names))
        return {row["name"]: Pipeline.FromString(bytes(row["body"])) for row in rows}

    def count_sent(self, connection: Connection, stream: str, window: timedelta) -> int:
        """Uncertain frames that a stream has sent on within a window."""
        return int(queries.count_sent(connection, stream=stream, since=self.clock.now() - window))

    def add_observation(self, connection: Connection, observation: Observation, frame_time: datetime) -> None:
        """Keeps an observation and tells of it."""
        stream = "/".join(observation.name.split("/")[:6])
        queries.insert_observation(
            connection,
            name=observation.name,
            stream=stream,
            label=observation.labels[0].concept if observation.labels else "",
            uncertain=observation.scores.uncertain,
            frame_time=frame_time,
            body=observation.SerializeToString(),
            now=self.clock.now(),
        )
        made = new_event(SERVICE, stream, ObservationMade(observation=observation), self.clock.now())
        outbox.publish(connection, made)

    def put_uncertain(self, connection: Connection, frame: UncertainFrame) -> None:
        """Keeps a frame to be sent on."""
        queries.put_uncertain(connection, **vars(frame), now=self.clock.now())

    def advance_stream(self, connection: Connection, name: str, tally: Tally) -> None:
        """Adds to a stream's figures."""
        queries.advance_stream(connection, name=name, **vars(tally))

    def take_uncertain(self, connection: Connection, limit: int) -> list[UncertainFrame]:
        """The next frames to send on, kept from other senders until the transaction ends."""
        fields = ("observation", "stream", "source", "event_id", "frame_time")
        return [
            UncertainFrame(data=bytes(row["data"]), **{field: row[field] for field in fields})
            for row in queries.take_uncertain(connection, limit=limit)
        ]

    def sent(self, connection: Connection, frame: UncertainFrame, item: str) -> None:
        """Remembers the item that a frame became; an empty one where it was refused for good."""
        queries.drop_uncertain(connection, observation=frame.observation)
        if item:
            queries.set_item(connection, name=frame.observation, item=item)
            queries.count_uncertain(connection, name=frame.stream)

    def get_observation(self, connection: Connection, name: str) -> Observation:
        """An observation. Raises NotFound."""
        return _observation(_found(queries.find_observation(connection, name=name), name))

    def list_observations(
        self, connection: Connection, stream: str, where: Where, before: str, limit: int
    ) -> list[Observation]:
        """A stream's observations before a name, newest first."""
        statement = (
            "SELECT * FROM observations WHERE stream = %(stream)s AND (%(before)s = '' OR name < %(before)s) "
            f"AND {where.sql} ORDER BY name DESC LIMIT %(limit)s"
        )
        values = {"stream": stream, "before": before, "limit": limit, **where.parameters}
        return [_observation(row) for row in connection.execute(statement.encode(), values)]

    def prune_observations(self, before: datetime) -> int:
        """Forgets old observations; answers how many."""
        with self.postgres.transaction() as connection:
            return int(queries.prune_observations(connection, before=before))


def _body(pipeline: Pipeline) -> bytes:
    kept = Pipeline()
    kept.CopyFrom(pipeline)
    for field in ("create_time", "update_time", "etag"):
        kept.ClearField(field)
    return kept.SerializeToString(deterministic=True)


def _pipeline(row: dict[str, Any]) -> Pipeline:
    pipeline = Pipeline.FromString(bytes(row["body"]))
    pipeline.create_time.FromDatetime(row["create_time"])
    pipeline.update_time.FromDatetime(row["update_time"])
    return with_etag(pipeline)  # type: ignore[no-any-return]


def _stream(row: dict[str, Any]) -> Stream:
    fields = ("name", "display_name", "observed_count", "dropped_count", "refused_count", "uncertain_count")
    stream = Stream(**{field: row[field] for field in fields})
    if row["lag_seconds"] is not None:
        stream.lag.FromTimedelta(timedelta(seconds=row["lag_seconds"]))
    if row["last_frame_time"] is not None:
        stream.last_frame_time.FromDatetime(row["last_frame_time"])
    stream.create_time.FromDatetime(row["create_time"])
    return stream


def _observation(row: dict[str, Any]) -> Observation:
    observation = Observation.FromString(bytes(row["body"]))
    observation.item = row["item"]
    return observation


def _found(row: dict[str, Any] | None, name: str) -> dict[str, Any]:
    if row is None:
        raise NotFound(f"there is no {name}", reason="RESOURCE_NOT_FOUND", metadata={"name": name})
    return row
