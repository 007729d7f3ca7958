"""gRPC: streams."""

import grpc
from google.protobuf import empty_pb2
from vesta_common.ids import new_id
from vesta_common.page_keys import by_name
from vesta_common.pages import read_page
from vesta_common.postgres import Connection
from vesta_common.resources import create_once
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

        def create(connection: Connection) -> Stream:
            self._store.insert_stream(connection, name, request.stream.display_name)
            return self._store.get_stream(connection, name)

        return create_once(self._store.postgres, request, Stream, name, create)

    def GetStream(self, request: GetStreamRequest, context: grpc.ServicerContext) -> Stream:
        """One stream with its figures."""
        with self._store.postgres.transaction() as connection:
            return self._store.get_stream(connection, request.name)

    def ListStreams(self, request: ListStreamsRequest, context: grpc.ServicerContext) -> ListStreamsResponse:
        """A pipeline's streams by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            self._store.get_pipeline(connection, request.parent)
            found = self._store.list_streams(connection, request.parent, page.after, page.limit)
        streams, token = page.cut(found, by_name)
        return ListStreamsResponse(streams=streams, next_page_token=token)

    def DeleteStream(self, request: DeleteStreamRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Removes a stream with its observations; frames that come later become dead letters."""
        with self._store.postgres.transaction() as connection:
            self._store.delete_stream(connection, request.name)
        return empty_pb2.Empty()
