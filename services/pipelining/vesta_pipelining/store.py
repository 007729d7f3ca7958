"""Pipelines, streams, observations and waiting frames in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vesta_common.clock import Clock
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.messages import set_times
from vesta_common.resources.etags import with_etag
from vesta_common.resources.filters import Where
from vesta_common.resources.methods import body_of, existing, missing, resource_of
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection, Postgres, load_queries
from vesta_contracts.pipelining.v1 import Observation, ObservationMade, Pipeline, Stream

from vesta_pipelining import load_shedding as shedding
from vesta_pipelining.load_shedding import Window

SERVICE = "pipelining"

queries = load_queries("vesta_pipelining")


@dataclass(frozen=True)
class Watch:
    """How the frames of a stream are looked at.

    Attributes:
        paused: frames are dropped whatever their age.
        age_max: older frames are dropped.
        uncertain_source: the Source that uncertain frames go through; empty where they stay.
    """

    deployment: str
    paused: bool
    age_max: timedelta
    uncertain_source: str
    uncertain_per_minute_max: int


@dataclass(frozen=True)
class UncertainFrame:
    """A frame on its way to the experts.

    Attributes:
        attempts: how often it was taken to be sent, this time included.
    """

    observation: str
    stream: str
    source: str
    event_id: str
    data: bytes
    content_type: str
    frame_time: datetime
    attempts: int
    create_time: datetime


@dataclass(frozen=True)
class StreamChange:
    """What a batch of frames does to its stream.

    Attributes:
        lag: of the last frame observed; None where none was.
    """

    stream: str
    observed: int
    dropped: int
    refused: int
    lag: timedelta | None
    last_frame_time: datetime
    window: Window


class Store:
    """The service's tables."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self.postgres = postgres
        self._clock = clock

    # Pipelines.

    def insert_pipeline(self, connection: Connection, pipeline: Pipeline) -> None:
        """Keeps a new pipeline.

        Raises:
            psycopg.errors.UniqueViolation: the name is taken.
        """
        queries.insert_pipeline(
            connection,
            name=pipeline.name,
            parent=parent_of(pipeline.name),
            body=body_of(pipeline),
            now=self._clock.now(),
        )

    def get_pipeline(self, connection: Connection, name: str) -> Pipeline:
        """A pipeline.

        Raises:
            NotFound: there is none.
        """
        return resource_of(Pipeline, existing(queries.find_pipeline(connection, name=name), name))

    def lock_pipeline(self, connection: Connection, name: str) -> Pipeline:
        """A pipeline, kept from others until the transaction ends.

        Raises:
            NotFound: there is none.
        """
        return resource_of(Pipeline, existing(queries.lock_pipeline(connection, name=name), name))

    def list_pipelines(self, connection: Connection, parent: str, after: str, limit: int) -> list[Pipeline]:
        """A project's pipelines after a name, in order of name."""
        return [
            resource_of(Pipeline, row)
            for row in queries.list_pipelines(connection, parent=parent, after=after, limit=limit)
        ]

    def update_pipeline(self, connection: Connection, pipeline: Pipeline) -> None:
        """Keeps what a pipeline is now."""
        queries.update_pipeline(connection, name=pipeline.name, body=body_of(pipeline), now=self._clock.now())

    def delete_pipeline(self, connection: Connection, name: str) -> None:
        """Removes a pipeline with all that is below it.

        Raises:
            NotFound: there is none.
        """
        if not queries.delete_pipeline(connection, name=name):
            raise missing(name)

    # Streams.

    def insert_stream(self, connection: Connection, stream: Stream) -> None:
        """Keeps a new stream.

        Raises:
            psycopg.errors.UniqueViolation: the name is taken.
            NotFound: there is no such pipeline.
        """
        pipeline = parent_of(stream.name)
        self.get_pipeline(connection, pipeline)
        queries.insert_stream(connection, pipeline=pipeline, **_settings(stream), now=self._clock.now())

    def get_stream(self, connection: Connection, name: str) -> Stream:
        """A stream.

        Raises:
            NotFound: there is none.
        """
        return _stream(existing(queries.find_stream(connection, name=name), name))

    def lock_stream(self, connection: Connection, name: str) -> Stream:
        """A stream, kept from others until the transaction ends.

        Raises:
            NotFound: there is none.
        """
        return _stream(existing(queries.lock_stream(connection, name=name), name))

    def update_stream(self, connection: Connection, stream: Stream) -> None:
        """Keeps what is set for a stream now."""
        queries.update_stream(connection, **_settings(stream), now=self._clock.now())

    @staticmethod
    def settled(stream: Stream) -> Stream:
        """The part of a stream that its etag is made of: what is set, not what its frames change."""
        return Stream(**_settings(stream))

    def list_streams(self, connection: Connection, pipeline: str, after: str, limit: int) -> list[Stream]:
        """A pipeline's streams after a name, in order of name."""
        return [_stream(row) for row in queries.list_streams(connection, pipeline=pipeline, after=after, limit=limit)]

    def delete_stream(self, connection: Connection, name: str) -> None:
        """Removes a stream with its observations.

        Raises:
            NotFound: there is none.
        """
        if not queries.delete_stream(connection, name=name):
            raise missing(name)

    def find_watch(self, stream: str) -> Watch | None:
        """How a stream is watched; None where there is no such stream."""
        with self.postgres.transaction() as connection:
            row = queries.find_watch(connection, name=stream)
        if row is None:
            return None
        pipeline = Pipeline.FromString(bytes(row["body"]))
        own_max = row["uncertain_per_minute_max"]
        return Watch(
            deployment=pipeline.steps[0].model.deployment,
            paused=row["paused"],
            age_max=shedding.age_max(pipeline),
            uncertain_source=pipeline.uncertain_source,
            uncertain_per_minute_max=shedding.uncertain_per_minute_max(pipeline) if own_max is None else own_max,
        )

    def lock_window(self, connection: Connection, stream: str) -> Window | None:
        """The stream's budget, the stream kept from others until the transaction ends; None where it is gone."""
        row = queries.lock_stream(connection, name=stream)
        return Window(row["window_start"], row["window_count"]) if row else None

    def change_stream(self, connection: Connection, change: StreamChange) -> None:
        """Moves a stream's counts on."""
        queries.count_frames(
            connection,
            name=change.stream,
            observed=change.observed,
            dropped=change.dropped,
            refused=change.refused,
            lag_seconds=change.lag.total_seconds() if change.lag is not None else None,
            last_frame_time=change.last_frame_time,
            window_start=change.window.start,
            window_count=change.window.count,
        )

    # Observations.

    def insert_observations(self, connection: Connection, observations: Sequence[Observation]) -> None:
        """Keeps observations and publishes them, in order."""
        if not observations:
            return
        now = self._clock.now()
        rows = [
            {
                "name": found.name,
                "stream": parent_of(found.name),
                "body": found.SerializeToString(),
                "label": found.labels[0].concept if found.labels else "",
                "labels": [label.concept for label in found.labels],
                "uncertain": found.scores.uncertain,
                "frame_time": found.frame_time.ToDatetime(now.tzinfo),
                "now": now,
            }
            for found in observations
        ]
        queries.insert_observations(connection, rows)
        outbox.publish(
            connection,
            *(
                new_event(SERVICE, parent_of(found.name), ObservationMade(observation=found), now)
                for found in observations
            ),
        )

    def get_observation(self, connection: Connection, name: str) -> Observation:
        """An observation.

        Raises:
            NotFound: there is none, or no more.
        """
        return _observation(existing(queries.find_observation(connection, name=name), name))

    def list_observations(
        self, connection: Connection, stream: str, where: Where, before: str, limit: int
    ) -> Sequence[Observation]:
        """A stream's observations before a name, newest frame first."""
        statement = (  # the filter is compiled to names and placeholders of our own
            "SELECT body, item FROM observations WHERE stream = %(stream)s AND (%(before)s = '' OR name < %(before)s) "
            f"AND {where.sql} ORDER BY name DESC LIMIT %(limit)s"
        )
        values = {"stream": stream, "before": before, "limit": limit, **where.parameters}
        return [_observation(row) for row in connection.execute(statement.encode(), values)]

    def prune_observations(self, before: datetime, limit: int) -> int:
        """Forgets observations made before a time, the oldest first; answers how many."""
        with self.postgres.transaction() as connection:
            return int(queries.prune_observations(connection, before=before, limit=limit))

    # Uncertain frames.

    def count_uncertain_frames(self, connection: Connection, stream: str) -> int:
        """How many of a stream's frames wait to be sent on."""
        return int(queries.count_uncertain_frames(connection, stream=stream))

    def insert_uncertain_frames(self, connection: Connection, frames: Sequence[dict[str, Any]]) -> None:
        """Keeps frames until they were sent on. Each has the columns of an UncertainFrame up to `frame_time`."""
        if frames:
            now = self._clock.now()
            queries.insert_uncertain_frames(connection, [{**frame, "now": now} for frame in frames])

    def claim_uncertain_frame(self, now: datetime, lease_expire_time: datetime) -> UncertainFrame | None:
        """Takes a frame that nobody sends just now."""
        with self.postgres.transaction() as connection:
            row = queries.claim_uncertain_frame(connection, now=now, lease_expire_time=lease_expire_time)
        if row is None:
            return None
        fields = (
            "observation",
            "stream",
            "source",
            "event_id",
            "content_type",
            "frame_time",
            "attempts",
            "create_time",
        )
        return UncertainFrame(data=bytes(row["data"]), **{field: row[field] for field in fields})

    def postpone_uncertain_frame(self, observation: str, try_time: datetime) -> None:
        """Lets a frame wait."""
        with self.postgres.transaction() as connection:
            queries.postpone_uncertain_frame(connection, observation=observation, try_time=try_time)

    def finish_uncertain_frame(self, frame: UncertainFrame, item: str) -> None:
        """A frame waits no more: it became an item, counted once whoever sent it, or none where `item` is empty."""

        def work(connection: Connection) -> None:
            queries.lock_stream(connection, name=frame.stream)
            if queries.delete_uncertain_frame(connection, observation=frame.observation) and item:
                queries.set_item(connection, name=frame.observation, item=item)
                queries.count_uncertain(connection, name=frame.stream)

        self.postgres.run(work)


def _stream(row: dict[str, Any]) -> Stream:
    settings = ("name", "display_name", "paused", "uncertain_per_minute_max")
    counts = ("observed_count", "dropped_count", "refused_count", "uncertain_count")
    found = with_etag(Stream(**{field: row[field] for field in settings}))
    found.MergeFrom(Stream(**{field: row[field] for field in counts}))
    if row["lag_seconds"] is not None:
        found.lag.FromTimedelta(timedelta(seconds=row["lag_seconds"]))
    set_times(found, row, "last_frame_time", "create_time", "update_time")
    return found


def _settings(stream: Stream) -> dict[str, Any]:
    """A stream's name and what is set for it, by column."""
    own_max = stream.uncertain_per_minute_max if stream.HasField("uncertain_per_minute_max") else None
    return {
        "name": stream.name,
        "display_name": stream.display_name,
        "paused": stream.paused,
        "uncertain_per_minute_max": own_max,
    }


def _observation(row: dict[str, Any]) -> Observation:
    found = Observation.FromString(bytes(row["body"]))
    found.item = row["item"]
    return found
