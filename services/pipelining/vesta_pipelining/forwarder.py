"""Uploads uncertain frames to the connection service, where they become items. A frame is deleted from the table once it is an item."""

from datetime import timedelta

import structlog
from google.api.httpbody_pb2 import HttpBody
from prometheus_client import CollectorRegistry, Counter
from vesta_common.backoff import exponential_backoff
from vesta_common.clock import Clock
from vesta_common.errors import VestaError, is_transient
from vesta_common.leases import LeaseLost
from vesta_contracts.connection.v1 import SourceServiceStub, UploadItemRequest

from vesta_pipelining.load_shedding import BACKOFF_FIRST, BACKOFF_MAX, WAIT_MAX
from vesta_pipelining.store import Store
from vesta_pipelining.store.uncertain_frames import UncertainFrame

UPLOAD_TIMEOUT = timedelta(seconds=30)  # shorter than the lease

log = structlog.get_logger()


class Forwarder:
    """Uploads uncertain frames. Any number may run: frames are leased, and the request_id makes repeated uploads idempotent."""

    def __init__(self, store: Store, sources: SourceServiceStub, clock: Clock, registry: CollectorRegistry) -> None:
        self._store = store
        self._sources = sources
        self._clock = clock
        self._counted = Counter(
            "vesta_pipelining_uncertain_frames_total",
            "Uncertain frames by outcome: sent, rejected, expired",
            ("end",),
            registry=registry,
        )

    def step(self) -> bool:
        """Uploads one frame; returns whether there was one."""
        frame = self._store.uncertain_frames.claim()
        if frame is None:
            return False
        try:
            self._forward(frame)
        except LeaseLost as error:
            log.warning("uncertain_frame_taken_over", observation=frame.observation, error=str(error))
        return True

    def _forward(self, frame: UncertainFrame) -> None:
        if self._clock.now() - frame.create_time > WAIT_MAX:
            self._finish(frame, "", "expired")
            return
        try:
            item = self._upload(frame)
        except VestaError as error:
            if is_transient(error):
                log.info("uncertain_frame_postponed", observation=frame.observation, error=str(error))
                delay = exponential_backoff(frame.attempt_count, BACKOFF_FIRST, BACKOFF_MAX)
                until = self._clock.now() + min(delay, error.retry_after or WAIT_MAX)
                self._store.uncertain_frames.postpone(frame, until)
            else:
                log.warning("uncertain_frame_rejected", observation=frame.observation, error=str(error))
                self._finish(frame, "", "rejected")
        else:
            self._finish(frame, item, "sent")

    def _finish(self, frame: UncertainFrame, item: str, end: str) -> None:
        self._store.uncertain_frames.finish(frame, item)
        self._counted.labels(end).inc()

    def _upload(self, frame: UncertainFrame) -> str:
        """Returns the name of the item that the frame became, now or in an earlier attempt."""
        camera = frame.stream.rpartition("/")[2]
        request = UploadItemRequest(
            parent=frame.source,
            file_name=f"{camera}-{frame.frame_time:%Y%m%dT%H%M%S.%fZ}.jpg",
            file=HttpBody(content_type=frame.content_type, data=frame.data),
            metadata={"camera": camera, "stream": frame.stream},
            request_id=frame.observation.rpartition("/")[2],  # deterministic, derived from the event's id
        )
        return self._sources.UploadItem(iter([request]), timeout=UPLOAD_TIMEOUT.total_seconds()).item
