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
from vesta_contracts.common.v1 import Prediction
from vesta_contracts.pipelining.v1 import Observation
from vesta_contracts.serving.v1 import DeploymentServiceStub, ImagePrediction, PredictInput, PredictRequest

from vesta_pipelining.frames import FRAME_BYTES_MAX, batches, lag, observation_id
from vesta_pipelining.load_shedding import WAITING_MAX, admit, is_ahead, is_too_old
from vesta_pipelining.store import Store, StreamChange, StreamSettings
from vesta_pipelining.stream_cache import StreamCache

FRAME = "vesta.pipelining.frame.v1.captured"
PREDICT_TIMEOUT_SECONDS = 10.0

log = structlog.get_logger()


class FrameOutcome(StrEnum):
    """The outcome of a frame."""

    OBSERVED = "observed"
    DROPPED = "dropped"
    REJECTED = "rejected"


@dataclass(frozen=True)
class FrameResult:
    """The result for one frame.

    Attributes:
        prediction: the model's prediction, if the frame was observed.
    """

    frame: Event
    settings: StreamSettings
    outcome: FrameOutcome
    prediction: Prediction


class FrameHandler:
    """Turns frames into observations.

    Args:
        frames_together_max: the maximum number of frames in one Predict call.
    """

    def __init__(
        self,
        store: Store,
        streams: StreamCache,
        deployments: DeploymentServiceStub,
        clock: Clock,
        registry: CollectorRegistry,
        frames_together_max: int,
    ) -> None:
        self._store = store
        self._streams = streams
        self._deployments = deployments
        self._clock = clock
        self._frames_together_max = frames_together_max
        self._counted = Counter("vesta_pipelining_frames_total", "Frames by outcome", ("end",), registry=registry)
        self._lag = Histogram(
            "vesta_pipelining_lag_seconds",
            "Age of frames at their observation",
            buckets=(0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 600, 3600),
            registry=registry,
        )

    def check(self, event: Event) -> None:
        """Accepts frames of existing streams.

        Raises:
            InvalidArgument: STREAM_NOT_FOUND, or FRAME_TIME_IN_FUTURE if the camera's clock is implausible.
        """
        if is_ahead(event.time, self._clock.now()):
            raise InvalidArgument(
                f"the frame time {event.time.isoformat()} is in the future; set the clock of the camera",
                reason="FRAME_TIME_IN_FUTURE",
            )
        try:
            known = self._streams.find(event.subject)
        except Exception as error:
            if is_transient(error):  # the error occurs again in prepare_frames, which is retried
                return
            raise
        if known is None:
            raise InvalidArgument(
                f"the stream {event.subject} does not exist; create it first", reason="STREAM_NOT_FOUND"
            )

    def prepare_frames(self, frames: Sequence[Event]) -> BatchHandler:
        """Predicts frames in batches; returns a handler that stores and publishes the observations.

        Raises:
            VestaError: the serving service is unavailable or overloaded; nothing was stored.
        """
        results = {result.frame.id: result for result in self._process(frames)}

        def handle_frames(connection: Connection, fresh: Sequence[Event]) -> None:
            self._store_results(connection, [results[frame.id] for frame in fresh if frame.id in results])

        return handle_frames

    def _process(self, frames: Sequence[Event]) -> list[FrameResult]:
        now = self._clock.now()
        results: dict[str, FrameResult] = {}
        frames_by_deployment: dict[str, list[Event]] = {}
        settings_by_frame: dict[str, StreamSettings] = {}
        for frame in frames:
            settings = self._streams.find(frame.subject)
            if settings is None:
                continue  # the stream was just deleted
            settings_by_frame[frame.id] = settings
            if settings.paused or is_too_old(frame.time, now, settings.age_max):
                results[frame.id] = FrameResult(frame, settings, FrameOutcome.DROPPED, Prediction())
            elif not 0 < len(frame.payload) <= FRAME_BYTES_MAX:
                results[frame.id] = FrameResult(frame, settings, FrameOutcome.REJECTED, Prediction())
            else:
                frames_by_deployment.setdefault(settings.deployment, []).append(frame)
        for deployment, deployment_frames in frames_by_deployment.items():
            for run in batches(deployment_frames, self._frames_together_max):
                for frame, (outcome, prediction) in zip(run, self._predict(deployment, run), strict=True):
                    results[frame.id] = FrameResult(frame, settings_by_frame[frame.id], outcome, prediction)
        return [results[frame.id] for frame in frames if frame.id in results]

    def _predict(self, deployment: str, frames: Sequence[Event]) -> list[tuple[FrameOutcome, Prediction]]:
        request = PredictRequest(name=deployment, inputs=[PredictInput(data=frame.payload) for frame in frames])
        try:
            answer = self._deployments.Predict(request, timeout=PREDICT_TIMEOUT_SECONDS)
        except VestaError as error:
            if is_transient(error) and error.reason != "DEPLOYMENT_NOT_READY":
                raise
            # A deployment that was deleted or has no model yet must not block other streams.
            log.warning("deployment_unavailable", deployment=deployment, frames=len(frames), error=str(error))
            return [(FrameOutcome.DROPPED, Prediction())] * len(frames)
        return [
            (FrameOutcome.REJECTED if image.reason else FrameOutcome.OBSERVED, prediction_of(image))
            for image in answer.predictions
        ]

    def _store_results(self, connection: Connection, results: Sequence[FrameResult]) -> None:
        by_stream: dict[str, list[FrameResult]] = {}
        for result in results:
            by_stream.setdefault(result.frame.subject, []).append(result)
        for stream in sorted(by_stream):  # a fixed order of locks prevents deadlocks
            self._store_stream_results(connection, stream, by_stream[stream])

    def _store_stream_results(self, connection: Connection, stream: str, results: Sequence[FrameResult]) -> None:
        window = self._store.lock_window(connection, stream)
        if window is None:
            return  # the stream was just deleted
        now = self._clock.now()
        observed = [result for result in results if result.outcome is FrameOutcome.OBSERVED]
        observations = [_observation(result, now) for result in observed]
        uncertain: list[dict[str, Any]] = []
        waiting = -1
        for result, observation in zip(observed, observations, strict=True):
            if not (result.prediction.uncertain and result.settings.uncertain_source):
                continue
            waiting = self._store.uncertain_frames.count(connection, stream) if waiting < 0 else waiting
            admitted = admit(window, now, result.settings.uncertain_per_minute_max)
            if admitted and waiting + len(uncertain) < WAITING_MAX:
                window = admitted
                uncertain.append(_uncertain(result, observation))
        outcomes = [result.outcome for result in results]
        change = StreamChange(
            stream=stream,
            observed=outcomes.count(FrameOutcome.OBSERVED),
            dropped=outcomes.count(FrameOutcome.DROPPED),
            rejected=outcomes.count(FrameOutcome.REJECTED),
            lag=lag(observed[-1].frame.time, now) if observed else None,
            last_frame_time=results[-1].frame.time,
            window=window,
        )
        self._store.insert_observations(connection, observations)
        self._store.uncertain_frames.insert(connection, uncertain)
        self._store.change_stream(connection, change)
        for result in results:
            self._counted.labels(result.outcome.value).inc()
        for result in observed:
            self._lag.observe(lag(result.frame.time, now).total_seconds())


def _observation(result: FrameResult, now: datetime) -> Observation:
    frame, prediction = result.frame, result.prediction
    observation = Observation(
        name=f"{frame.subject}/observations/{observation_id(frame.subject, frame.id, frame.time)}",
        prediction=prediction,
        labels=[score for score in prediction.scores if score.predicted],
    )
    observation.frame_time.FromDatetime(frame.time)
    observation.create_time.FromDatetime(now)
    return observation


def prediction_of(image: ImagePrediction) -> Prediction:
    """Returns the prediction for an image. The previous version of serving states it in fields of their own."""
    if image.HasField("prediction"):
        return image.prediction
    return Prediction(
        model_version=image.model_version,
        scores=sorted([*image.labels, *image.other_labels], key=lambda label: -label.score),
        uncertain=image.uncertain,
        margin=image.margin,
    )


def _uncertain(result: FrameResult, observation: Observation) -> dict[str, Any]:
    return {
        "observation": observation.name,
        "stream": result.frame.subject,
        "source": result.settings.uncertain_source,
        "event_id": result.frame.id,
        "data": result.frame.payload,
        "content_type": result.frame.content_type,
        "frame_time": result.frame.time,
    }
