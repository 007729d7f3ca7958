"""The gRPC API: Sources, uploads, Syncs, and the internal MediaService."""

import hashlib
from collections.abc import Iterator, Sequence

import grpc
from google.protobuf import empty_pb2
from vesta_common.errors import FailedPrecondition, InvalidArgument, Violation
from vesta_common.ids import deterministic_id, new_id
from vesta_common.media.image_formats import IMAGE_BYTES_MAX
from vesta_common.messages import copy_of
from vesta_common.resources.methods import create_once, find_answer, revise, run_once
from vesta_common.resources.page_keys import by_age, by_name, newest_before
from vesta_common.resources.pages import read_page
from vesta_common.rpc import outline
from vesta_common.runtime.service import BackgroundTask
from vesta_common.storage.postgres import Connection
from vesta_contracts.connection.v1 import (
    CancelSyncRequest,
    CreateSourceRequest,
    CreateSyncRequest,
    DeleteSourceRequest,
    GetSourceRequest,
    GetSyncRequest,
    IngestedMedia,
    IngestMediaRequest,
    IngestMediaResponse,
    ListSourcesRequest,
    ListSourcesResponse,
    ListSyncsRequest,
    ListSyncsResponse,
    MediaServiceServicer,
    Source,
    SourceServiceServicer,
    Sync,
    SyncServiceServicer,
    UpdateSourceRequest,
    UploadItemRequest,
    UploadItemResponse,
)
from vesta_contracts.datasets.v1 import DatasetServiceStub, GetDatasetRequest

from vesta_connection.ingest import Arrival, Ingest, RejectedFile
from vesta_connection.sources.allow_list import AllowList
from vesta_connection.store import Store
from vesta_connection.syncs.dataset_items import DatasetItems

OUTLINED = ("/vesta.connection.v1.SourceService/UploadItem",)
"""Methods that read the files of requests with `vesta_common.rpc.outline.contents`."""
_MUTABLE = ("display_name", "bucket.access_key_id", "bucket.secret_access_key", "split")


class SourceService(SourceServiceServicer):
    """Implements SourceService, including uploads."""

    def __init__(
        self, store: Store, ingest: Ingest, items: DatasetItems, datasets: DatasetServiceStub, allow_list: AllowList
    ) -> None:
        self._store = store
        self._ingest = ingest
        self._items = items
        self._datasets = datasets
        self._allow_list = allow_list

    def CreateSource(self, request: CreateSourceRequest, context: grpc.ServicerContext) -> Source:
        """Validates the location and the dataset, and creates the Source."""
        if answer := find_answer(self._store.postgres, request, Source):
            return answer
        self._check_location(request.source)
        _check_credentials(request.source, has_secret=bool(request.source.bucket.secret_access_key))
        self._datasets.GetDataset(GetDatasetRequest(name=request.source.dataset))
        name = f"{request.parent}/sources/{request.source_id or new_id()}"

        def create(connection: Connection) -> Source:
            source = copy_of(request.source, name=name)
            self._store.insert_source(connection, source, source.bucket.secret_access_key)
            return self._store.get_source(connection, name)

        return create_once(self._store.postgres, request, Source, name, create)

    def GetSource(self, request: GetSourceRequest, context: grpc.ServicerContext) -> Source:
        with self._store.postgres.transaction() as connection:
            return self._store.get_source(connection, request.name)

    def ListSources(self, request: ListSourcesRequest, context: grpc.ServicerContext) -> ListSourcesResponse:
        """Lists a project's Sources ordered by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._store.list_sources(connection, request.parent, page.after, page.limit)
        sources, token = page.cut(rows, by_name)
        return ListSourcesResponse(sources=sources, next_page_token=token)

    def UpdateSource(self, request: UpdateSourceRequest, context: grpc.ServicerContext) -> Source:
        """Updates the display name, the split or the credentials. An empty secret keeps the stored one."""
        with self._store.postgres.transaction() as connection:
            current = self._store.get_source(connection, request.source.name)
        self._check_location(current)  # no update changes it; names are resolved before any row is locked
        with self._store.postgres.transaction() as connection:
            current, sealed = self._store.lock_source(connection, request.source.name)
            updated = revise(current, request.source, request.update_mask, _MUTABLE)
            _check_credentials(updated, has_secret=bool(updated.bucket.secret_access_key or sealed))
            self._store.update_source(connection, updated, sealed)
            return self._store.get_source(connection, updated.name)

    def DeleteSource(self, request: DeleteSourceRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a Source that is not being synced."""
        with self._store.postgres.transaction() as connection:
            self._store.lock_source(connection, request.name)
            if self._store.syncs.count_unfinished_of(connection, request.name):
                raise FailedPrecondition(
                    f"a Sync of {request.name} is running; cancel it first", reason="SOURCE_SYNCING"
                )
            self._store.delete_source(connection, request.name)
        return empty_pb2.Empty()

    def UploadItem(
        self, request_iterator: Iterator[UploadItemRequest], context: grpc.ServicerContext
    ) -> UploadItemResponse:
        """Stores one image, which may be sent in several messages."""
        first = next(request_iterator, UploadItemRequest())
        data = whole_file(_content_of(first), map(_content_of, request_iterator))
        requested = copy_of(first)
        requested.file.data = hashlib.sha256(data).digest()
        if answer := find_answer(self._store.postgres, requested, UploadItemResponse):
            return answer
        with self._store.postgres.transaction() as connection:
            source = self._store.get_source(connection, first.parent)
        if source.WhichOneof("kind") != "upload":
            raise FailedPrecondition(
                f"{source.name} is not a source of kind upload; create a Sync instead", reason="SOURCE_NOT_UPLOAD"
            )
        (media,) = self._ingest.take([Arrival(first.file_name, data)], source.name)
        if isinstance(media, RejectedFile):
            raise InvalidArgument(media.message, reason=media.reason, violations=[Violation("file", media.message)])

        (created,) = self._items.create(source, [media], dict(first.metadata))
        response = UploadItemResponse(item=created.name, media=media, already_existed=created.already_existed)
        # Adding the same image again is idempotent, so that no transaction is open during the call to datasets.
        return run_once(self._store.postgres, requested, UploadItemResponse, lambda _: response)

    def _check_location(self, source: Source) -> None:
        match source.WhichOneof("kind"):
            case "folder":
                self._allow_list.check_folder(source.folder.path)
            case "bucket":
                self._allow_list.check_url(source.bucket.url, source.bucket.endpoint_url)
            case None:
                raise InvalidArgument(
                    "a source requires a kind: folder, bucket or upload; set one of them",
                    reason="SOURCE_KIND_MISSING",
                    violations=[Violation("source", "requires folder, bucket or upload")],
                )


def _content_of(message: UploadItemRequest) -> bytes | memoryview:
    """Returns the part of the file in a message, which has just been received. A large part is not copied."""
    large = outline.contents()
    return large[0] if large else message.file.data


def whole_file(first: bytes | memoryview, others: Iterator[bytes | memoryview]) -> bytes | memoryview:
    """Joins the parts of a file until it exceeds the size limit. A file in one part is not copied.

    The parts are joined as they arrive, so that many small ones take no more memory than the file.
    """
    joined: bytearray | None = None
    for part in others:
        if joined is None:
            joined = bytearray(first)
        joined += part
        if len(joined) > IMAGE_BYTES_MAX:
            break
    return first if joined is None else memoryview(joined)


def _check_credentials(source: Source, *, has_secret: bool) -> None:
    """Checks that an access key has a secret. A secret without an access key is stored for later."""
    if source.bucket.access_key_id and not has_secret:
        raise InvalidArgument(
            "access_key_id requires secret_access_key; set both or neither",
            reason="SOURCE_SECRET_MISSING",
            violations=[Violation("source.bucket.secret_access_key", "is empty")],
        )


class SyncService(SyncServiceServicer):
    """Implements SyncService.

    Args:
        loops: the background tasks of this process, which are woken after a Sync is created.
    """

    def __init__(self, store: Store, loops: Sequence[BackgroundTask]) -> None:
        self._store = store
        self._loops = loops

    def CreateSync(self, request: CreateSyncRequest, context: grpc.ServicerContext) -> Sync:
        """Queues a Sync."""
        ending = deterministic_id(request.parent, request.request_id) if request.request_id else new_id()
        name = f"{request.parent}/syncs/{ending}"

        def create(connection: Connection) -> Sync:
            source, _ = self._store.lock_source(connection, request.parent)  # prevents its deletion
            if source.WhichOneof("kind") == "upload":
                raise FailedPrecondition(
                    "a source of kind upload cannot be synced; upload files instead", reason="SOURCE_NOT_SYNCABLE"
                )
            self._store.syncs.insert(connection, name, request.parent)
            return self._store.syncs.get(connection, name)

        sync = run_once(self._store.postgres, request, Sync, create)
        for loop in self._loops:
            loop.wake()
        return sync

    def GetSync(self, request: GetSyncRequest, context: grpc.ServicerContext) -> Sync:
        with self._store.postgres.transaction() as connection:
            return self._store.syncs.get(connection, request.name)

    def ListSyncs(self, request: ListSyncsRequest, context: grpc.ServicerContext) -> ListSyncsResponse:
        """Lists a Source's Syncs, newest first."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._store.syncs.list_page(connection, request.parent, newest_before(page), page.limit)
        syncs, token = page.cut(rows, by_age)
        return ListSyncsResponse(syncs=syncs, next_page_token=token)

    def CancelSync(self, request: CancelSyncRequest, context: grpc.ServicerContext) -> Sync:
        """Requests the cancellation of a Sync."""
        with self._store.postgres.transaction() as connection:
            return self._store.syncs.request_cancel(connection, request.name)


class MediaService(MediaServiceServicer):
    """Stores files for other services."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def IngestMedia(self, request: IngestMediaRequest, context: grpc.ServicerContext) -> IngestMediaResponse:
        """Stores each file, or returns the reason why it was rejected."""
        ingested = self._ingest.take([Arrival(file.file_name, file.data) for file in request.files])
        return IngestMediaResponse(
            results=[
                IngestedMedia(reason=entry.reason, message=entry.message)
                if isinstance(entry, RejectedFile)
                else IngestedMedia(media=entry)
                for entry in ingested
            ]
        )
