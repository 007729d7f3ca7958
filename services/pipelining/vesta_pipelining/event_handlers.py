"""Handles frames: predicts those that are recent enough, and stores and publishes the observations.

A frame has one of three outcomes: it is observed, dropped because it is too old or its stream is paused, or rejected because it is not an
image. While the model is unavailable, the consumer retries frames in order, so that they become older: an overloaded pipeline drops frames
instead of lagging behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from vesta_common.clock import Clock
from vesta_common.errors import InvalidArgument, VestaError, is_transient
from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer import BatchHandler
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import ImageScores
from vesta_contracts.pipelining.v1 import Observation
from vesta_contracts.serving.v1 import DeploymentServiceStub, ImagePrediction, PredictInput, PredictRequest

from vesta_pipelining.frames import FRAME_BYTES_MAX, lag, observation_id, together
from vesta_pipelining.load_shedding import WAITING_MAX, admit, is_ahead, is_too_old
from vesta_pipelining.store import Store, StreamChange, Watch
from vesta_pipelining.stream_cache import Watches

FRAME = "vesta.pipelining.frame.v1.captured"
PREDICT_TIMEOUT_SECONDS = 10.0

log = structlog.get_logger()


class End(StrEnum):
    """The outcome of a frame."""

    OBSERVED = "observed"
    DROPPED = "dropped"
    REFUSED = "refused"


@dataclass(frozen=True)
class FrameResult:
    """The result for one frame.

    Attributes:
        seen: the model's prediction, if the frame was observed.
    """

    frame: Event
    watch: Watch
    end: End
    seen: ImagePrediction


class Frames:
    """Turns frames into observations.

    Args:
        frames_together_max: the maximum number of frames in one Predict call.
    """

    def __init__(
        self,
        store: Store,
        watches: Watches,
        deployments: DeploymentServiceStub,
        clock: Clock,
        registry: CollectorRegistry,
        frames_together_max: int,
    ) -> None:
        self._store = store
        self._watches = watches
        self._deployments = deployments
        self._clock = clock
        self._frames_together_max = frames_together_max
        self._counted = Counter(
            "vesta_pipelining_frames_total", "Frames by what became of them", ("end",), registry=registry
        )
        self._lag = Histogram(
            "vesta_pipelining_lag_seconds",
            "Age of frames when they were observed",
            buckets=(0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 600, 3600),
            registry=registry,
        )

    def check(self, event: Event) -> None:
        """Accepts frames of existing streams.

        Raises:
            InvalidArgument: STREAM_NOT_FOUND, or FRAME_TIME_AHEAD if the camera's clock is implausible.
        """
        if is_ahead(event.time, self._clock.now()):
            raise InvalidArgument(
                f"the frame was taken at {event.time.isoformat()}, which is to come; set the camera's clock",
                reason="FRAME_TIME_AHEAD",
            )
        try:
            known = self._watches.find(event.subject)
        except Exception as error:
            if is_transient(error):  # the error occurs again in prepare_frames, which is retried
                return
            raise
        if known is None:
            raise InvalidArgument(f"there is no stream {event.subject}; create it first", reason="STREAM_NOT_FOUND")

    def prepare_frames(self, frames: Sequence[Event]) -> BatchHandler:
        """Predicts frames in batches; returns a handler that stores and publishes the observations.

        Raises:
            VestaError: the serving service is unavailable or overloaded; nothing was stored.
        """
        outcomes = {outcome.frame.id: outcome for outcome in self._look(frames)}

        def handle_frames(connection: Connection, fresh: Sequence[Event]) -> None:
            self._keep(connection, [outcomes[frame.id] for frame in fresh if frame.id in outcomes])

        return handle_frames

    def _look(self, frames: Sequence[Event]) -> list[FrameResult]:
        now = self._clock.now()
        found: dict[str, FrameResult] = {}
        asked: dict[str, list[Event]] = {}
        watches: dict[str, Watch] = {}
        for frame in frames:
            watch = self._watches.find(frame.subject)
            if watch is None:
                continue  # the stream was just deleted
            watches[frame.id] = watch
            if watch.paused or is_too_old(frame.time, now, watch.age_max):
                found[frame.id] = FrameResult(frame, watch, End.DROPPED, ImagePrediction())
            elif not 0 < len(frame.payload) <= FRAME_BYTES_MAX:
                found[frame.id] = FrameResult(frame, watch, End.REFUSED, ImagePrediction())
            else:
                asked.setdefault(watch.deployment, []).append(frame)
        for deployment, wanted in asked.items():
            for run in together(wanted, self._frames_together_max):
                for frame, (end, seen) in zip(run, self._ask(deployment, run), strict=True):
                    found[frame.id] = FrameResult(frame, watches[frame.id], end, seen)
        return [found[frame.id] for frame in frames if frame.id in found]

    def _ask(self, deployment: str, frames: Sequence[Event]) -> list[tuple[End, ImagePrediction]]:
        request = PredictRequest(name=deployment, inputs=[PredictInput(data=frame.payload) for frame in frames])
        try:
            answer = self._deployments.Predict(request, timeout=PREDICT_TIMEOUT_SECONDS)
        except VestaError as error:
            if is_transient(error) and error.reason != "DEPLOYMENT_NOT_READY":
                raise
            # A deployment that was deleted or has no model yet must not block other streams.
            log.warning("deployment_cannot_be_asked", deployment=deployment, frames=len(frames), error=str(error))
            return [(End.DROPPED, ImagePrediction())] * len(frames)
        return [(End.REFUSED if seen.reason else End.OBSERVED, seen) for seen in answer.predictions]

    def _keep(self, connection: Connection, outcomes: Sequence[FrameResult]) -> None:
        by_stream: dict[str, list[FrameResult]] = {}
        for outcome in outcomes:
            by_stream.setdefault(outcome.frame.subject, []).append(outcome)
        for stream in sorted(by_stream):  # a fixed order of locks prevents deadlocks
            self._keep_stream(connection, stream, by_stream[stream])

    def _keep_stream(self, connection: Connection, stream: str, outcomes: Sequence[FrameResult]) -> None:
        window = self._store.lock_window(connection, stream)
        if window is None:
            return  # the stream was just deleted
        now = self._clock.now()
        observed = [outcome for outcome in outcomes if outcome.end is End.OBSERVED]
        observations = [_observation(outcome, now) for outcome in observed]
        uncertain: list[dict[str, Any]] = []
        waiting = -1
        for outcome, observation in zip(observed, observations, strict=True):
            if not (outcome.seen.uncertain and outcome.watch.uncertain_source):
                continue
            waiting = self._store.count_uncertain_frames(connection, stream) if waiting < 0 else waiting
            admitted = admit(window, now, outcome.watch.uncertain_per_minute_max)
            if admitted and waiting + len(uncertain) < WAITING_MAX:
                window = admitted
                uncertain.append(_uncertain(outcome, observation))
        ends = [outcome.end for outcome in outcomes]
        change = StreamChange(
            stream=stream,
            observed=ends.count(End.OBSERVED),
            dropped=ends.count(End.DROPPED),
            refused=ends.count(End.REFUSED),
            lag=lag(observed[-1].frame.time, now) if observed else None,
            last_frame_time=outcomes[-1].frame.time,
            window=window,
        )
        with connection.pipeline():  # one round trip for all statements, to reduce latency
            self._store.insert_observations(connection, observations)
            self._store.insert_uncertain_frames(connection, uncertain)
            self._store.change_stream(connection, change)
        for outcome in outcomes:
            self._counted.labels(outcome.end.value).inc()
        for outcome in observed:
            self._lag.observe(lag(outcome.frame.time, now).total_seconds())


def _observation(outcome: FrameResult, now: datetime) -> Observation:
    frame, seen = outcome.frame, outcome.seen
    made = Observation(
        name=f"{frame.subject}/observations/{observation_id(frame.subject, frame.id, frame.time)}",
        scores=ImageScores(
            model_version=seen.model_version,
            scores=sorted([*seen.labels, *seen.discarded], key=lambda found: -found.score),
            uncertain=seen.uncertain,
            margin=seen.margin,
        ),
        labels=seen.labels,
    )
    made.frame_time.FromDatetime(frame.time)
    made.scores.predict_time.FromDatetime(now)
    made.create_time.FromDatetime(now)
    return made


def _uncertain(outcome: FrameResult, observation: Observation) -> dict[str, Any]:
    return {
        "observation": observation.name,
        "stream": outcome.frame.subject,
        "source": outcome.watch.uncertain_source,
        "event_id": outcome.frame.id,
        "data": outcome.frame.payload,
        "content_type": outcome.frame.content_type,
        "frame_time": outcome.frame.time,
    }
