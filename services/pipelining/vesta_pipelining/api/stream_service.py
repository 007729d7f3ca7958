"""gRPC: streams."""

import grpc
import psycopg
from google.protobuf import empty_pb2
from vesta_common.errors import AlreadyExists
from vesta_common.idempotency import once
from vesta_common.ids import new_id
from vesta_common.pages import read_page
from vesta_contracts.pipelining.v1 import (
    CreateStreamRequest,
    DeleteStreamRequest,
    GetStreamRequest,
    ListStreamsRequest,
    ListStreamsResponse,
    Stream,
    StreamServiceServicer,
)

from vesta_pipelining.store import Store


class StreamService(StreamServiceServicer):
    """Keeps Streams."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def CreateStream(self, request: CreateStreamRequest, context: grpc.ServicerContext) -> Stream:
        """Keeps a new stream; its frames are looked at from now on."""
        name = f"{request.parent}/streams/{request.stream_id or new_id()}"

        def create() -> Stream:
            self._store.insert_stream(connection, name, request.stream.display_name)
            return self._store.get_stream(connection, name)

        try:
            with self._store.postgres.transaction() as connection:
                return once(connection, request, Stream, create)
        except psycopg.errors.UniqueViolation as error:
            raise AlreadyExists(
                f"{name} is there already", reason="RESOURCE_EXISTS", metadata={"name": name}
            ) from error

    def GetStream(self, request: GetStreamRequest, context: grpc.ServicerContext) -> Stream:
        """One stream with its figures."""
        with self._store.postgres.transaction() as connection:
            return self._store.get_stream(connection, request.name)

    def ListStreams(self, request: ListStreamsRequest, context: grpc.ServicerContext) -> ListStreamsResponse:
        """A pipeline's streams by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            self._store.get_pipeline(connection, request.parent)
            after = page.cursor[0] if page.cursor else ""
            found = self._store.list_streams(connection, request.parent, after, page.limit)
        kept, token = page.cut(found, lambda stream: (stream.name,))
        return ListStreamsResponse(streams=kept, next_page_token=token)

    def DeleteStream(self, request: DeleteStreamRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Removes a stream with its observations; frames that come later become dead letters."""
        with self._store.postgres.transaction() as connection:
            self._store.delete_stream(connection, request.name)
        return empty_pb2.Empty()
