"""The StreamService of the gRPC API."""

import grpc
from google.protobuf import empty_pb2
from vesta_common.ids import new_id
from vesta_common.messages import copy_of
from vesta_common.resources.etags import check_etag
from vesta_common.resources.masks import apply_update
from vesta_common.resources.methods import create_once
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page
from vesta_common.storage.postgres import Connection
from vesta_contracts.pipelining.v1 import (
    CreateStreamRequest,
    DeleteStreamRequest,
    GetStreamRequest,
    ListStreamsRequest,
    ListStreamsResponse,
    Stream,
    StreamServiceServicer,
    UpdateStreamRequest,
)

from vesta_pipelining.store import Store

_MUTABLE = ("display_name", "paused", "uncertain_per_minute_max")


class StreamService(StreamServiceServicer):
    """Implements StreamService."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def CreateStream(self, request: CreateStreamRequest, context: grpc.ServicerContext) -> Stream:
        """Creates a stream. Its frames are processed from now on."""
        name = f"{request.parent}/streams/{request.stream_id or new_id()}"

        def create(connection: Connection) -> Stream:
            self._store.insert_stream(connection, copy_of(request.stream, name=name))
            return self._store.get_stream(connection, name)

        return create_once(self._store.postgres, request, Stream, name, create)

    def GetStream(self, request: GetStreamRequest, context: grpc.ServicerContext) -> Stream:
        with self._store.postgres.transaction() as connection:
            return self._store.get_stream(connection, request.name)

    def ListStreams(self, request: ListStreamsRequest, context: grpc.ServicerContext) -> ListStreamsResponse:
        """Lists a pipeline's streams ordered by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            self._store.get_pipeline(connection, request.parent)
            rows = self._store.list_streams(connection, request.parent, page.after, page.limit)
        streams, token = page.cut(rows, by_name)
        return ListStreamsResponse(streams=streams, next_page_token=token)

    def UpdateStream(self, request: UpdateStreamRequest, context: grpc.ServicerContext) -> Stream:
        """Updates a stream. Its frames follow the change within a second."""
        with self._store.postgres.transaction() as connection:
            current = self._store.lock_stream(connection, request.stream.name)
            check_etag(request.stream.etag, self._store.etag_part(current))
            updated = apply_update(current, request.stream, request.update_mask, _MUTABLE)
            self._store.update_stream(connection, updated)
            return self._store.get_stream(connection, current.name)

    def DeleteStream(self, request: DeleteStreamRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a stream with its observations. Later frames become dead letters."""
        with self._store.postgres.transaction() as connection:
            self._store.delete_stream(connection, request.name)
        return empty_pb2.Empty()
