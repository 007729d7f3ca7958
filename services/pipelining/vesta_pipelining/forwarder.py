"""Uploads uncertain frames to the connection service, where they become items. A frame is deleted from the table once it is an item."""

from datetime import timedelta

import structlog
from google.api.httpbody_pb2 import HttpBody
from prometheus_client import CollectorRegistry, Counter
from vesta_common.clock import Clock
from vesta_common.errors import VestaError, is_transient
from vesta_contracts.connection.v1 import SourceServiceStub, UploadItemRequest

from vesta_pipelining.load_shedding import LEASE, WAIT_MAX, backoff
from vesta_pipelining.store import Store, UncertainFrame

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
            "Uncertain frames by what became of them: sent, refused, expired",
            ("end",),
            registry=registry,
        )

    def step(self) -> bool:
        """Uploads one frame; returns whether there was one."""
        now = self._clock.now()
        frame = self._store.claim_uncertain_frame(now, now + LEASE)
        if frame is None:
            return False
        if now - frame.create_time > WAIT_MAX:
            self._finish(frame, "", "expired")
            return True
        try:
            item = self._upload(frame)
        except VestaError as error:
            if is_transient(error):
                log.info("uncertain_frame_postponed", observation=frame.observation, error=str(error))
                rest = min(backoff(frame.attempts), error.retry_after or WAIT_MAX)
                self._store.postpone_uncertain_frame(frame.observation, self._clock.now() + rest)
            else:
                log.warning("uncertain_frame_refused", observation=frame.observation, error=str(error))
                self._finish(frame, "", "refused")
            return True
        self._finish(frame, item, "sent")
        return True

    def _finish(self, frame: UncertainFrame, item: str, end: str) -> None:
        self._store.finish_uncertain_frame(frame, item)
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
