"""What becomes of a batch of frames: the old are dropped, the rest is asked about together, and everything commits at once."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog
from vesta_common.consumer import BatchHandler
from vesta_common.errors import NotFound
from vesta_common.events import Event
from vesta_common.ids import new_id
from vesta_common.postgres import Connection
from vesta_contracts.common.v1 import ImageScores
from vesta_contracts.pipelining.v1 import Observation, Pipeline
from vesta_contracts.serving.v1 import DeploymentServiceStub, ImagePrediction, PredictInput, PredictRequest

from vesta_pipelining.shedding import MINUTE, is_too_old, room_for_uncertain
from vesta_pipelining.store import Store, Tally, UncertainFrame

FRAME_TYPE = "vesta.pipelining.frame.v1.captured"
PREDICT_MAX = 64
PREDICT_TIMEOUT_SECONDS = 15.0

log = structlog.get_logger()


class Frames:
    """Handles frames as events whose payload is a JPEG."""

    def __init__(self, store: Store, serving: DeploymentServiceStub) -> None:
        self._store = store
        self._serving = serving

    def batch_handlers(self) -> Mapping[str, BatchHandler]:
        """By event type."""
        return {FRAME_TYPE: self.handle_frames_captured}

    def handle_frames_captured(self, connection: Connection, frames: Sequence[Event]) -> None:
        """Makes observations of frames, in their order.

        Raises:
            NotFound: a frame's stream was not created; alone in its batch, that frame becomes a dead letter.
            Unavailable, ResourceExhausted: serving cannot answer just now; the batch is tried again, and its frames age.
        """
        routes = self._store.routes(connection, sorted({frame.subject for frame in frames}))
        strangers = [frame.subject for frame in frames if frame.subject not in routes]
        if strangers:
            raise NotFound(f"there is no {strangers[0]}; create the stream first", reason="STREAM_NOT_FOUND")
        tallies = {name: Tally() for name in routes}
        now = self._store.clock.now()
        fresh = [frame for frame in frames if not is_too_old(frame.time, now, routes[frame.subject])]
        for frame in frames:
            tally = tallies[frame.subject]
            tally.last_frame_time = max(frame.time, tally.last_frame_time or frame.time)
            tally.dropped_count += is_too_old(frame.time, now, routes[frame.subject])
        answers = self._predict(fresh, routes)
        rooms = {
            name: room_for_uncertain(pipeline, self._store.count_sent(connection, name, MINUTE))
            for name, pipeline in routes.items()
        }
        for frame in fresh:
            answer, tally = answers[frame.id], tallies[frame.subject]
            if answer.reason:
                tally.refused_count += 1
                log.info("frame_refused", stream=frame.subject, reason=answer.reason)
                continue
            name = self._observe(connection, frame, answer)
            tally.observed_count += 1
            tally.lag_seconds = (self._store.clock.now() - frame.time).total_seconds()
            if answer.uncertain and rooms[frame.subject] > 0:
                rooms[frame.subject] -= 1
                source = routes[frame.subject].uncertain_source
                self._store.put_uncertain(
                    connection, UncertainFrame(name, frame.subject, source, frame.id, frame.time, frame.payload)
                )
        for stream, tally in tallies.items():
            self._store.advance_stream(connection, stream, tally)

    def _predict(self, frames: Sequence[Event], routes: Mapping[str, Pipeline]) -> dict[str, ImagePrediction]:
        """What each frame's deployment says of it, by the event's id."""
        by_deployment: dict[str, list[Event]] = {}
        for frame in frames:
            by_deployment.setdefault(routes[frame.subject].steps[0].model.deployment, []).append(frame)
        answers: dict[str, ImagePrediction] = {}
        for deployment, group in by_deployment.items():
            for start in range(0, len(group), PREDICT_MAX):
                batch = group[start : start + PREDICT_MAX]
                inputs = [PredictInput(data=frame.payload) for frame in batch]
                request = PredictRequest(name=deployment, inputs=inputs)
                found = self._serving.Predict(request, timeout=PREDICT_TIMEOUT_SECONDS).predictions
                answers |= {frame.id: answer for frame, answer in zip(batch, found, strict=True)}
        return answers

    def _observe(self, connection: Connection, frame: Event, answer: ImagePrediction) -> str:
        """Keeps and tells what was seen in one frame; answers the observation's name."""
        observation = Observation(
            name=f"{frame.subject}/observations/{_sortable(frame.time)}{new_id()[-16:]}",
            scores=ImageScores(
                model_version=answer.model_version,
                scores=[*answer.labels, *answer.discarded],
                uncertain=answer.uncertain,
                margin=answer.margin,
            ),
            labels=answer.labels,
        )
        now = self._store.clock.now()
        observation.frame_time.FromDatetime(frame.time)
        observation.scores.predict_time.FromDatetime(now)
        observation.create_time.FromDatetime(now)
        self._store.add_observation(connection, observation, frame.time)
        return observation.name


def _sortable(time: datetime) -> str:
    """Eleven digits of microseconds in base 36, so that names sort by when frames were taken."""
    digits, number = "", int(time.timestamp() * 1_000_000)
    for _ in range(11):
        number, rest = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[rest] + digits
    return digits
