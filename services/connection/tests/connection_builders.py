"""Builders for the tests: images, hostile files, a fake datasets service, and the service."""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cryptography.fernet import Fernet
from PIL import Image
from vesta_common.clock import ManualClock
from vesta_common.resources.methods import missing
from vesta_common.sandbox import Sandbox
from vesta_common.storage.postgres import Postgres
from vesta_connection.ingest import Ingest, RejectedFile
from vesta_connection.sources.allow_list import AllowList
from vesta_connection.sources.listing import SourceFile
from vesta_connection.store import Store
from vesta_connection.store.syncs import FileResult
from vesta_connection.syncs.dataset_items import DatasetItems
from vesta_connection.syncs.worker import SyncWorker
from vesta_connection.vault import Vault
from vesta_contracts.common.v1 import Media
from vesta_contracts.connection.v1 import (
    BucketSource,
    CreateSourceRequest,
    CreateSyncRequest,
    FolderSource,
    GetSyncRequest,
    MediaServiceStub,
    Source,
    SourceServiceStub,
    Sync,
    SyncServiceStub,
    UploadSource,
)
from vesta_contracts.datasets.v1 import (
    BatchCreateItemsRequest,
    BatchCreateItemsResponse,
    CreatedItem,
    Dataset,
    DatasetServiceServicer,
    GetDatasetRequest,
    ItemServiceServicer,
    NewItem,
)
from vesta_local.fakes import FirstResponses

VAULT = Vault([Fernet.generate_key().decode()])
PROJECT = "projects/acme"
DATASET = f"{PROJECT}/datasets/vans"
LITTLE = timedelta(milliseconds=1)


def a_picture(seed: int = 0, width: int = 96, height: int = 64) -> Image.Image:
    """Returns a smooth image, which depends on the seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, image_format: str = "JPEG", **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, image_format, **options)
    return target.getvalue()


def a_jpeg(seed: int = 0) -> bytes:
    return encoded(a_picture(seed))


def a_png_that_claims(width: int, height: int) -> bytes:
    """Returns a decompression bomb: a few bytes that decode to a very large image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def an_animation() -> bytes:
    return encoded(a_picture(1), "GIF", save_all=True, append_images=[a_picture(2), a_picture(3)])


HOSTILE = {
    "truncated.jpg": (a_jpeg(90)[:-200], "IMAGE_TRUNCATED"),
    "bomb.png": (a_png_that_claims(50_000, 50_000), "IMAGE_TOO_LARGE"),
    "100-megapixels.png": (encoded(Image.new("L", (10_000, 10_000)), "PNG"), "IMAGE_TOO_LARGE"),
    "animated.gif": (an_animation(), "IMAGE_ANIMATED"),
    "program.jpg": (b"\x7fELF" + bytes(500), "IMAGE_FORMAT_UNSUPPORTED"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "IMAGE_FORMAT_UNSUPPORTED"),
    "nothing.jpg": (b"", "IMAGE_EMPTY"),
}


class OneDataset(DatasetServiceServicer):
    """A fake DatasetService with one dataset, which can be deleted."""

    def __init__(self, items: "FakeDatasets") -> None:
        self._items = items

    def GetDataset(self, request: GetDatasetRequest, context: grpc.ServicerContext) -> Dataset:
        if self._items.gone or request.name != DATASET:
            raise missing(request.name)
        return Dataset(name=DATASET, taxonomy=f"{PROJECT}/taxonomies/vehicles")


class FakeDatasets(ItemServiceServicer):
    """A fake ItemService with the contract of the real one: an image is one item, and a request_id has one result."""

    def __init__(self) -> None:
        self.gone = False
        self.items: dict[str, str] = {}
        self.added: list[NewItem] = []
        self._first = FirstResponses()

    def BatchCreateItems(
        self, request: BatchCreateItemsRequest, context: grpc.ServicerContext
    ) -> BatchCreateItemsResponse:
        if self.gone or request.parent != DATASET:
            raise missing(request.parent)
        return self._first.once(
            request, lambda: BatchCreateItemsResponse(items=[self._add(new) for new in request.items])
        )

    def _add(self, new: NewItem) -> CreatedItem:
        existed = new.media.sha256 in self.items
        name = self.items.setdefault(new.media.sha256, f"{DATASET}/items/{len(self.items):026d}")
        if not existed:
            self.added.append(NewItem.FromString(new.SerializeToString()))
        return CreatedItem(name=name, already_existed=existed)


class Doing(DatasetItems):
    """Calls `meanwhile` while a batch is being added."""

    def __init__(self, items: DatasetItems, meanwhile: Any) -> None:
        self._items = items
        self._meanwhile = meanwhile

    def add(
        self, source: Source, files: Sequence[SourceFile], taken: Sequence[Media | RejectedFile], request_id: str
    ) -> list[FileResult]:
        self._meanwhile()
        return self._items.add(source, files, taken, request_id)


@dataclass
class Connection:
    """The service: its API, its parts, and the dataset."""

    sources: SourceServiceStub
    syncs: SyncServiceStub
    media: MediaServiceStub
    datasets: FakeDatasets
    postgres: Postgres
    store: Store
    ingest: Ingest
    items: DatasetItems
    allow_list: AllowList
    sandbox: Sandbox
    clock: ManualClock
    inbox: Path

    def a_worker(self, items: DatasetItems | None = None, renew_interval: timedelta = timedelta(hours=1)) -> SyncWorker:
        """Returns a worker like that of another process: it shares the database only."""
        store = Store(self.postgres, self.clock, VAULT)
        return SyncWorker(store, self.ingest, items or self.items, self.allow_list, self.clock, renew_interval)

    def a_folder_source(self, name: str = "folder", path: Path | None = None) -> Source:
        return self._create(name, Source(dataset=DATASET, folder=FolderSource(path=str(path or self.inbox))))

    def a_bucket_source(self, bucket: BucketSource, name: str = "bucket") -> Source:
        return self._create(name, Source(dataset=DATASET, bucket=bucket))

    def an_upload_source(self, name: str = "upload") -> Source:
        return self._create(name, Source(dataset=DATASET, upload=UploadSource()))

    def _create(self, name: str, source: Source) -> Source:
        return self.sources.CreateSource(CreateSourceRequest(parent=PROJECT, source_id=name, source=source))

    def queued(self, source: Source) -> Sync:
        self.clock.advance(LITTLE)
        return self.syncs.CreateSync(CreateSyncRequest(parent=source.name))

    def synced(self, source: Source) -> Sync:
        """Creates a Sync of the source and runs it until it ends."""
        sync = self.queued(source)
        assert self.a_worker().step()
        return self.syncs.GetSync(GetSyncRequest(name=sync.name))

    def write(self, *seeds: int) -> None:
        for seed in seeds:
            (self.inbox / f"{seed:03d}.jpg").write_bytes(a_jpeg(seed))

    def told(self) -> list[str]:
        with self.postgres.transaction() as connection:
            rows = connection.execute("SELECT headers FROM outbox ORDER BY id").fetchall()
        return [str(row["headers"]) for row in rows]


def counts(sync: Sync) -> dict[str, int]:
    """Returns the counts of a Sync, without zeros."""
    found = {
        field: getattr(sync, f"{field}_count") for field in ("found", "added", "unchanged", "duplicate", "rejected")
    }
    return {field: count for field, count in found.items() if count}


def reasons(sync: Sync) -> dict[str, str]:
    return {rejection.file_name: rejection.reason for rejection in sync.rejections}


def chunks(data: bytes, size: int) -> Sequence[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
