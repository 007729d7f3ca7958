"""Sends uncertain frames to the dataset, through the pipeline's Source: beside the stream, so that no camera waits for it."""

from collections.abc import Iterator

import structlog
from google.api import httpbody_pb2
from vesta_common.errors import VestaError, is_transient
from vesta_contracts.connection.v1 import SourceServiceStub, UploadItemRequest

from vesta_pipelining.store import Store, UncertainFrame

FRAMES_AT_ONCE = 8

log = structlog.get_logger()


class Sender:
    """Any number of replicas may run one: a frame is locked while it is sent, and a repeat is answered with the same item."""

    def __init__(self, store: Store, sources: SourceServiceStub) -> None:
        self._store = store
        self._sources = sources

    def step(self) -> bool:
        """Sends some frames; False where none waits."""
        with self._store.postgres.transaction() as connection:
            frames = self._store.take_uncertain(connection, FRAMES_AT_ONCE)
            for frame in frames:
                self._store.sent(connection, frame, self._upload(frame))
        return bool(frames)

    def _upload(self, frame: UncertainFrame) -> str:
        """The item that a frame becomes; empty where it is refused for good.

        Raises:
            VestaError: connection does not answer; the frame waits.
        """
        try:
            return self._sources.UploadItem(_messages(frame)).item
        except VestaError as error:
            if is_transient(error):
                raise
            log.warning("frame_not_sent", observation=frame.observation, error=str(error))
            return ""


def _messages(frame: UncertainFrame) -> Iterator[UploadItemRequest]:
    camera = frame.stream.rpartition("/")[2]
    yield UploadItemRequest(
        parent=frame.source,
        file_name=f"{camera}-{frame.frame_time:%Y%m%dT%H%M%S.%f}.jpg",
        metadata={"camera": camera},
        request_id=frame.event_id[:128],
        file=httpbody_pb2.HttpBody(content_type="image/jpeg", data=frame.data),
    )
