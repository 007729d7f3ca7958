"""ArchiveService: uploads and downloads of archives, and long-running operations."""

from collections.abc import Iterator

import grpc
from google.api import httpbody_pb2
from google.longrunning import operations_pb2
from vesta_common.errors import InvalidArgument, NotFound
from vesta_common.ids import new_id
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.datasets.v1 import (
    ArchiveServiceServicer,
    DownloadArchiveRequest,
    GetOperationRequest,
    UploadArchiveRequest,
    UploadArchiveResponse,
)

from vesta_datasets.operations.transfers import ARCHIVE_BYTES_MAX, archive_folder, owns
from vesta_datasets.operations.worker import Operations
from vesta_datasets.store import Store

ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


class ArchiveService(ArchiveServiceServicer):
    """Uploads and downloads archives, and returns the operations on them."""

    def __init__(self, store: Store, operations: Operations, objects: ObjectStore) -> None:
        self._store = store
        self._operations = operations
        self._objects = objects

    def UploadArchive(
        self, request_iterator: Iterator[UploadArchiveRequest], context: grpc.ServicerContext
    ) -> UploadArchiveResponse:
        """Stores a zip archive while it is received."""
        first = next(request_iterator)
        if not first.file.data.startswith(ZIP_MAGIC):
            raise InvalidArgument("the archive is not a zip file; upload a zip archive", reason="ARCHIVE_NOT_ZIP")
        key = f"{archive_folder(first.parent)}/{new_id()}.zip"

        def chunks() -> Iterator[bytes]:
            yield first.file.data
            for message in request_iterator:
                yield message.file.data

        stored = self._objects.put_stream(key, chunks(), ARCHIVE_BYTES_MAX)
        return UploadArchiveResponse(archive_key=stored.key, size_bytes=stored.size_bytes)

    def DownloadArchive(
        self, request: DownloadArchiveRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody]:
        if not owns(self._objects, request.parent, request.archive_key):
            raise NotFound(f"the archive {request.archive_key} does not exist", reason="ARCHIVE_NOT_FOUND")
        for chunk in self._objects.stream(request.archive_key):
            yield httpbody_pb2.HttpBody(content_type="application/zip", data=chunk)

    def GetOperation(self, request: GetOperationRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        with self._store.postgres.transaction() as connection:
            return self._operations.get(connection, request.name)
