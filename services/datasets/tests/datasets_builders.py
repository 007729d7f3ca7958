"""Builders and helpers of the tests: clients of the service, and media without image bytes."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from vesta_common.clock import ManualClock
from vesta_common.errors import ResourceExhausted, VestaError
from vesta_common.events.cloudevents import Event, new_event
from vesta_common.rpc.client import MESSAGE_BYTES_MAX
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Connection
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.common.v1 import Annotation, ConceptScore, ImageLabel, Media, Prediction
from vesta_contracts.connection.v1 import IngestedMedia, IngestMediaRequest, IngestMediaResponse
from vesta_contracts.datasets.v1 import (
    AnnotationList,
    ArchiveFormat,
    ArchiveServiceStub,
    BatchAnnotateItemsRequest,
    BatchCreateItemsRequest,
    Concept,
    CreateDatasetRequest,
    CreatedItem,
    CreateTaxonomyRequest,
    Dataset,
    DatasetServiceStub,
    GetDatasetRequest,
    GetOperationRequest,
    ImportDatasetRequest,
    ItemAnnotations,
    ItemServiceStub,
    ListItemsRequest,
    NewItem,
    SnapshotServiceStub,
    SplitPolicy,
    Taxonomy,
    TaxonomyServiceStub,
)
from vesta_contracts.serving.v1 import ItemPrediction, PredictionCreated
from vesta_datasets.ingest.event_handlers import EventHandlers
from vesta_datasets.store import Store

PROJECT = "projects/acme"
DIMENSION = 8
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def says(*concepts: str) -> list[Annotation]:
    """Returns image labels of these concepts."""
    return [Annotation(concept=concept, image_label=ImageLabel()) for concept in concepts]


def a_medium(seed: int, perceptual_hash: int | None = None) -> Media:
    """Returns stored media. Media of different seeds are not near-duplicates."""
    digest = hashlib.sha256(str(seed).encode()).hexdigest()
    far = int.from_bytes(hashlib.sha256(f"hash {seed}".encode()).digest()[:8], "big")
    return Media(
        sha256=digest,
        size_bytes=100,
        mime_type="image/jpeg",
        width_px=64,
        height_px=48,
        object_key=f"media/{digest}",
        thumbnail_key=f"thumbnails/{digest}",
        perceptual_hash=far if perceptual_hash is None else perceptual_hash,
    )


def a_png(text: str) -> bytes:
    """Returns a PNG image of the size of `a_medium`. Its colour depends on the first characters of the text."""
    target = io.BytesIO()
    Image.new("RGB", (64, 48), f"#{text.encode().hex()[:6]}").save(target, "PNG")
    return target.getvalue()


def a_zip(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Returns a zip archive of the files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return target.getvalue()


def refusal(error: type[VestaError], call: Callable[[], object], reason: str) -> None:
    """Asserts that the call raises the error with this reason."""
    with pytest.raises(error) as refused:
        call()
    assert refused.value.reason == reason


class Ingest:
    """A fake of the connection service for imports. It accepts any bytes as an image, and rejects messages that are too large.

    Bytes after `EXIF` are removed, as the real service removes metadata.

    Args:
        meanwhile: called with the number of the call, from 1, before the response.
    """

    def __init__(self, meanwhile: Callable[[int], None] = lambda call: None) -> None:
        self.calls = 0
        self.file_names: list[str] = []
        self._meanwhile = meanwhile

    def IngestMedia(self, request: IngestMediaRequest, timeout: float) -> IngestMediaResponse:
        """Returns media for each file."""
        self.calls += 1
        self._meanwhile(self.calls)
        if request.ByteSize() > MESSAGE_BYTES_MAX:
            raise ResourceExhausted(f"a message of {request.ByteSize()} bytes is too large")
        results = []
        self.file_names += [file.file_name for file in request.files]
        for file in request.files:
            media = a_medium(0)
            media.sha256 = hashlib.sha256(file.data.partition(b"EXIF")[0]).hexdigest()
            media.perceptual_hash = int(media.sha256[:16], 16)
            media.provenance.original_sha256 = hashlib.sha256(file.data).hexdigest()
            results.append(IngestedMedia(media=media))
        return IngestMediaResponse(results=results)


class Datasets:
    """Clients of the service: as another service (`items`) and as a user of the gateway (`outside`)."""

    def __init__(self, store: Store, objects: ObjectStore, channel: grpc.Channel, outside: grpc.Channel) -> None:
        self.store = store
        self.objects = objects
        self.taxonomies = TaxonomyServiceStub(channel)
        self.datasets = DatasetServiceStub(channel)
        self.items = ItemServiceStub(channel)
        self.snapshots = SnapshotServiceStub(channel)
        self.archives = ArchiveServiceStub(channel)
        self.outside = ItemServiceStub(outside)

    def a_dataset(self, dataset_id: str = "vans", **fields: Any) -> str:
        """Creates a dataset of vans and cars, and returns its name."""
        self.taxonomies.CreateTaxonomy(
            CreateTaxonomyRequest(
                parent=PROJECT,
                taxonomy_id="vehicles",
                taxonomy=Taxonomy(concepts=[Concept(id="van"), Concept(id="car")]),
                request_id="vehicles",
            )
        )
        dataset = Dataset(
            **{"taxonomy": f"{PROJECT}/taxonomies/vehicles", "split_policy": SplitPolicy(test_share=0.25), **fields}
        )
        return self.datasets.CreateDataset(
            CreateDatasetRequest(parent=PROJECT, dataset_id=dataset_id, dataset=dataset)
        ).name

    def add(
        self, dataset: str, *media: Media, labels: tuple[str, ...] | None = None, **fields: Any
    ) -> list[CreatedItem]:
        """Creates items of the media."""
        annotations = None if labels is None else AnnotationList(annotations=says(*labels))
        items = [NewItem(media=one, annotations=annotations, **fields) for one in media]
        return list(self.items.BatchCreateItems(BatchCreateItemsRequest(parent=dataset, items=items)).items)

    def annotate(self, dataset: str, item: str, *concepts: str) -> None:
        """Accepts labels for an item, without a task."""
        entry = ItemAnnotations(item=item, annotations=says(*concepts))
        self.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=[entry]))

    def listed(self, dataset: str, filter_text: str = "") -> list[str]:
        """Returns the names of the items that match a filter."""
        return [item.name for item in self.items.ListItems(ListItemsRequest(parent=dataset, filter=filter_text)).items]

    def counts(self, dataset: str) -> Any:
        """Returns the counts of the dataset."""
        return self.datasets.GetDataset(GetDatasetRequest(name=dataset)).counts

    def scored(
        self, dataset: str, items: list[str], generation: int = 1, van: float = 0.6, space: str = "space"
    ) -> None:
        """Handles a PredictionCreated event for items."""
        model = f"{PROJECT}/models/m/versions/{generation}"
        scores = Prediction(
            model_version=model,
            scores=[ConceptScore(concept="van", score=van), ConceptScore(concept="car", score=1 - van)],
            uncertain=van < 0.8,
            margin=2 * van - 1,
        )
        self.predicts(dataset, dict.fromkeys(items, scores), generation, space)

    def predicts(
        self,
        dataset: str,
        said: dict[str, Prediction],
        generation: int = 1,
        space: str = "space",
        deployment: str = "d",
    ) -> None:
        """Handles a PredictionCreated event with these scores, and with embeddings."""
        rng = np.random.default_rng(7)
        vectors = rng.normal(size=(len(said), DIMENSION)).astype("<f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        made = PredictionCreated(
            deployment=f"{PROJECT}/deployments/{deployment}",
            dataset=dataset,
            model_version=f"{PROJECT}/models/m/versions/{generation}",
            generation=generation,
            embedding_digest=space,
            predictions=[
                ItemPrediction(item=item, prediction=scores, embedding=vector.tobytes())
                for (item, scores), vector in zip(said.items(), vectors, strict=True)
            ],
        )
        self.handle(new_event("serving", made.deployment, made, self.store.clock.now()))

    def handle(self, event: Event) -> None:
        """Handles an event as the consumer does."""
        event_handlers = EventHandlers(self.store)
        handlers, batch_handlers = event_handlers.label_handlers(), event_handlers.prediction_handlers()

        def handle(connection: Connection) -> None:
            if event.type in batch_handlers:
                batch_handlers[event.type](connection, [event])
            else:
                handlers[event.type](connection, event)

        self.store.postgres.run(handle)

    def begin_import(
        self,
        dataset: str,
        files: Mapping[str, bytes],
        layout: Any = ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER,
        *,
        reviewed: bool = False,
    ) -> str:
        """Starts an import of an archive of the files, and returns the name of the operation."""
        key = f"archives/acme/{hashlib.sha256(repr(sorted(files)).encode()).hexdigest()[:16]}.zip"
        self.objects.put_named(key, a_zip(files))
        return self.datasets.ImportDataset(
            ImportDatasetRequest(name=dataset, format=layout, archive_key=key, reviewed=reviewed)
        ).name

    def operation(self, name: str) -> Any:
        """Returns the current state of an operation."""
        return self.archives.GetOperation(GetOperationRequest(name=name))

    def advance(self, by: timedelta) -> None:
        """Advances the clock."""
        assert isinstance(self.store.clock, ManualClock)
        self.store.clock.advance(by)

    def lease_expire_time(self) -> datetime:
        """Returns the expiry time of the lease of the only operation."""
        with self.store.postgres.transaction() as connection:
            row = connection.execute("SELECT lease_expire_time FROM operations").fetchone()
        assert row is not None
        return row["lease_expire_time"]

    def event_types(self) -> list[str]:
        """Returns the types of the events in the outbox, in order."""
        with self.store.postgres.transaction() as connection:
            rows = connection.execute("SELECT headers FROM outbox ORDER BY id").fetchall()
        return [dict(row["headers"])["ce_type"].removeprefix("vesta.datasets.") for row in rows]


def handle_accepted(
    datasets: Datasets, item: str, seconds: int, task: str, concept: str, *, control: bool = False
) -> None:
    """Handles an answer with this accept time, in seconds after noon."""
    accepted_task = TaskAccepted(task=task, item=item, annotations=says(concept), control=control)
    accepted_task.accept_time.FromDatetime(NOON + timedelta(seconds=seconds))
    datasets.handle(new_event("annotation", task, accepted_task, datasets.store.clock.now()))
