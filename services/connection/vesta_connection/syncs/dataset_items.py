"""Adds stored media to the source's dataset, and returns the result for each file."""

from collections.abc import Mapping, Sequence

from vesta_contracts.common.v1 import Media
from vesta_contracts.connection.v1 import Source
from vesta_contracts.datasets.v1 import BatchCreateItemsRequest, CreatedItem, ItemServiceStub, NewItem

from vesta_connection.ingest import RETRIED_REASONS, RejectedFile
from vesta_connection.sources.listing import SourceFile
from vesta_connection.store.syncs import FileResult

CALL_TIMEOUT_SECONDS = 60.0


class DatasetItems:
    """Creates items in datasets."""

    def __init__(self, datasets: ItemServiceStub) -> None:
        self._datasets = datasets

    def add(
        self, source: Source, files: Sequence[SourceFile], ingested: Sequence[Media | RejectedFile], request_id: str
    ) -> list[FileResult]:
        """Adds the ingested media to the dataset; returns a result per file, in order. The next sync retries unreadable files."""
        media = [entry for entry in ingested if isinstance(entry, Media)]
        created = iter(self.create(source, media, {}, request_id) if media else ())
        return [
            FileResult(file.file_name, "" if entry.reason in RETRIED_REASONS else file.fingerprint, entry)
            if isinstance(entry, RejectedFile)
            else FileResult(file.file_name, file.fingerprint, next(created))
            for file, entry in zip(files, ingested, strict=True)
        ]

    def create(
        self, source: Source, media: Sequence[Media], metadata: Mapping[str, str], request_id: str = ""
    ) -> Sequence[CreatedItem]:
        """Adds media as items of the source's dataset; returns the existing item for an image that the dataset already contains."""
        request = BatchCreateItemsRequest(
            parent=source.dataset,
            items=[NewItem(media=entry, split=source.split, metadata=metadata) for entry in media],
            request_id=request_id,
        )
        return self._datasets.BatchCreateItems(request, timeout=CALL_TIMEOUT_SECONDS).items
