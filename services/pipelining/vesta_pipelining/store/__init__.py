"""The database layer: PostgreSQL. This module stores pipelines, streams and observations; no other package contains SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vesta_common.clock import Clock
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.events.outbox import EVENT_BYTES_MAX
from vesta_common.events.summaries import summarised
from vesta_common.messages import set_times
from vesta_common.resources.etags import with_etag
from vesta_common.resources.filters import Where
from vesta_common.resources.methods import body_of, existing, missing, resource_of
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.pipelining.v1 import Observation, ObservationCreated, Pipeline, Stream

from vesta_pipelining import load_shedding as shedding
from vesta_pipelining.load_shedding import Window
from vesta_pipelining.store.statements import queries
from vesta_pipelining.store.uncertain_frames import UncertainFrames

SERVICE = "pipelining"


@dataclass(frozen=True)
class StreamSettings:
    """How the frames of a stream are processed.

    Attributes:
        paused: whether frames are dropped regardless of their age.
        age_max: older frames are dropped.
        uncertain_source: the Source to upload uncertain frames to; empty if they are not uploaded.
    """

    deployment: str
    paused: bool
    age_max: timedelta
    uncertain_source: str
    uncertain_per_minute_max: int


@dataclass(frozen=True)
class StreamChange:
    """The changes of a stream by a batch of frames.

    Attributes:
        lag: of the last observed frame; None if none was observed.
    """

    stream: str
    observed: int
    dropped: int
    rejected: int
    lag: timedelta | None
    last_frame_time: datetime
    window: Window


class Store:
    """Reads and writes the service's tables."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self.postgres = postgres
        self._clock = clock
        self.uncertain_frames = UncertainFrames(postgres, clock)

    # Pipelines.

    def insert_pipeline(self, connection: Connection, pipeline: Pipeline) -> None:
        """Inserts a pipeline.

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
        """Returns a pipeline.

        Raises:
            NotFound: it does not exist.
        """
        return resource_of(Pipeline, existing(queries.find_pipeline(connection, name=name), name))

    def lock_pipeline(self, connection: Connection, name: str) -> Pipeline:
        """Returns a pipeline and locks its row until the transaction ends.

        Raises:
            NotFound: it does not exist.
        """
        return resource_of(Pipeline, existing(queries.lock_pipeline(connection, name=name), name))

    def list_pipelines(self, connection: Connection, parent: str, after: str, limit: int) -> list[Pipeline]:
        """Returns a project's pipelines with a name greater than `after`, ordered by name."""
        return [
            resource_of(Pipeline, row)
            for row in queries.list_pipelines(connection, parent=parent, after=after, limit=limit)
        ]

    def update_pipeline(self, connection: Connection, pipeline: Pipeline) -> None:
        queries.update_pipeline(connection, name=pipeline.name, body=body_of(pipeline), now=self._clock.now())

    def delete_pipeline(self, connection: Connection, name: str) -> None:
        """Deletes a pipeline with its streams and observations.

        Raises:
            NotFound: it does not exist.
        """
        if not queries.delete_pipeline(connection, name=name):
            raise missing(name)

    # Streams.

    def insert_stream(self, connection: Connection, stream: Stream) -> None:
        """Inserts a stream.

        Raises:
            psycopg.errors.UniqueViolation: the name is taken.
            NotFound: the pipeline does not exist.
        """
        pipeline = parent_of(stream.name)
        self.get_pipeline(connection, pipeline)
        queries.insert_stream(connection, pipeline=pipeline, **_settings(stream), now=self._clock.now())

    def get_stream(self, connection: Connection, name: str) -> Stream:
        """Returns a stream.

        Raises:
            NotFound: it does not exist.
        """
        return _stream(existing(queries.find_stream(connection, name=name), name))

    def lock_stream(self, connection: Connection, name: str) -> Stream:
        """Returns a stream and locks its row until the transaction ends.

        Raises:
            NotFound: it does not exist.
        """
        return _stream(existing(queries.lock_stream(connection, name=name), name))

    def update_stream(self, connection: Connection, stream: Stream) -> None:
        """Updates the user's fields of a stream."""
        queries.update_stream(connection, **_settings(stream), now=self._clock.now())

    @staticmethod
    def etag_part(stream: Stream) -> Stream:
        """Returns the part of a stream that its etag covers: the user's fields, without the counts."""
        return Stream(**_settings(stream))

    def list_streams(self, connection: Connection, pipeline: str, after: str, limit: int) -> list[Stream]:
        """Returns a pipeline's streams with a name greater than `after`, ordered by name."""
        return [_stream(row) for row in queries.list_streams(connection, pipeline=pipeline, after=after, limit=limit)]

    def delete_stream(self, connection: Connection, name: str) -> None:
        """Deletes a stream with its observations.

        Raises:
            NotFound: it does not exist.
        """
        if not queries.delete_stream(connection, name=name):
            raise missing(name)

    def find_stream_settings(self, stream: str) -> StreamSettings | None:
        """Returns how a stream's frames are processed; None if the stream does not exist."""
        with self.postgres.transaction() as connection:
            row = queries.find_stream_settings(connection, name=stream)
        if row is None:
            return None
        pipeline = Pipeline.FromString(bytes(row["body"]))
        own_max = row["uncertain_per_minute_max"]
        return StreamSettings(
            deployment=pipeline.steps[0].model.deployment,
            paused=row["paused"],
            age_max=shedding.age_max(pipeline),
            uncertain_source=pipeline.uncertain_source,
            uncertain_per_minute_max=shedding.uncertain_per_minute_max(pipeline) if own_max is None else own_max,
        )

    def lock_window(self, connection: Connection, stream: str) -> Window | None:
        """Returns the stream's window and locks the stream's row until the transaction ends; None if the stream does not exist."""
        row = queries.lock_stream(connection, name=stream)
        return Window(row["window_start"], row["window_count"]) if row else None

    def change_stream(self, connection: Connection, change: StreamChange) -> None:
        """Updates a stream's counts, lag and window."""
        queries.count_frames(
            connection,
            name=change.stream,
            observed=change.observed,
            dropped=change.dropped,
            rejected=change.rejected,
            lag_seconds=change.lag.total_seconds() if change.lag is not None else None,
            last_frame_time=change.last_frame_time,
            window_start=change.window.start,
            window_count=change.window.count,
        )

    # Observations.

    def insert_observations(self, connection: Connection, observations: Sequence[Observation]) -> None:
        """Inserts observations and publishes them, in order. Waits for no result, so that the caller can pipeline it."""
        if not observations:
            return
        now = self._clock.now()
        rows = [
            {
                "name": observation.name,
                "stream": parent_of(observation.name),
                "body": observation.SerializeToString(),
                "label": observation.labels[0].concept if observation.labels else "",
                "labels": [label.concept for label in observation.labels],
                "uncertain": observation.prediction.uncertain,
                "frame_time": observation.frame_time.ToDatetime(now.tzinfo),
                "now": now,
            }
            for observation in observations
        ]
        for row in rows:
            queries.insert_observation(connection, **row)
        outbox.publish(
            connection,
            *(
                new_event(SERVICE, parent_of(observation.name), _announcement(observation), now)
                for observation in observations
            ),
        )

    def get_observation(self, connection: Connection, name: str) -> Observation:
        """Returns an observation.

        Raises:
            NotFound: it does not exist, or its retention has passed.
        """
        return _observation(existing(queries.find_observation(connection, name=name), name))

    def list_observations(
        self, connection: Connection, stream: str, where: Where, before: str, limit: int
    ) -> Sequence[Observation]:
        """Returns a stream's observations with a name less than `before`, newest frame first."""
        statement = (  # the filter consists of our own column names and placeholders
            "SELECT body, item FROM observations WHERE stream = %(stream)s AND (%(before)s = '' OR name < %(before)s) "
            f"AND {where.sql} ORDER BY name DESC LIMIT %(limit)s"
        )
        values = {"stream": stream, "before": before, "limit": limit, **where.parameters}
        return [_observation(row) for row in connection.execute(statement.encode(), values)]

    def prune_observations(self, before: datetime, limit: int) -> int:
        """Deletes observations that are older than `before`, oldest first; returns their number."""
        with self.postgres.transaction() as connection:
            return int(queries.prune_observations(connection, before=before, limit=limit))


def _announcement(observation: Observation) -> ObservationCreated:
    """Returns the event of an observation, without the map or the objects if they are too large for it."""
    created = ObservationCreated(observation=observation)
    if created.ByteSize() > EVENT_BYTES_MAX:
        created.observation.prediction.ClearField("segmentation_map")  # without its runs, it would not be a map
    return summarised(created)


def _stream(row: dict[str, Any]) -> Stream:
    settings = ("name", "display_name", "paused", "uncertain_per_minute_max")
    counts = ("observed_count", "dropped_count", "rejected_count", "uncertain_count")
    stream = with_etag(Stream(**{field: row[field] for field in settings}))
    stream.MergeFrom(Stream(**{field: row[field] for field in counts}))
    if row["lag_seconds"] is not None:
        stream.lag.FromTimedelta(timedelta(seconds=row["lag_seconds"]))
    set_times(stream, row, "last_frame_time", "create_time", "update_time")
    return stream


def _settings(stream: Stream) -> dict[str, Any]:
    """Returns a stream's name and the user's fields, by column."""
    own_max = stream.uncertain_per_minute_max if stream.HasField("uncertain_per_minute_max") else None
    return {
        "name": stream.name,
        "display_name": stream.display_name,
        "paused": stream.paused,
        "uncertain_per_minute_max": own_max,
    }


def _observation(row: dict[str, Any]) -> Observation:
    observation = Observation.FromString(bytes(row["body"]))
    observation.item = row["item"]
    return observation
