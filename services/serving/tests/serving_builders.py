"""Builders for the tests: images, and fake services."""

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from PIL import Image
from serving_models import CONCEPTS, DIMENSION, a_detector, a_map_model, a_segmenter
from vesta_common.errors import Unavailable
from vesta_common.resources.methods import missing
from vesta_common.resources.names import parent_of
from vesta_common.resources.pages import SIZE_DEFAULT
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.common.v1 import Media, TaskType
from vesta_contracts.datasets.v1 import (
    Dataset,
    DatasetCounts,
    DatasetServiceServicer,
    GetDatasetRequest,
    GetItemRequest,
    Item,
    ItemEmbedding,
    ItemServiceServicer,
    ListItemsRequest,
    ListItemsResponse,
    Split,
)
from vesta_contracts.training.v1 import (
    GetModelVersionRequest,
    ModelInput,
    ModelOutput,
    ModelServiceServicer,
    ModelSignature,
    ModelVersion,
    ObjectSelection,
)

PROJECT = "projects/acme"
DATASET = f"{PROJECT}/datasets/vans"
DEADLINE_SECONDS = 30.0


def a_picture(colour: str | tuple[int, int, int] = "red", image_format: str = "JPEG") -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(target, image_format)
    return target.getvalue()


class FakeRegistry(ModelServiceServicer):
    """A fake ModelService.

    Attributes:
        look: called at each request.
        unavailable: versions for which it returns Unavailable.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.look: Callable[[], None] = lambda: None
        self.unavailable: set[str] = set()
        self._versions: dict[str, ModelVersion] = {}
        self._count = 0

    def add(
        self,
        onnx_bytes: bytes,
        space: str = "space",
        concepts: Sequence[str] = CONCEPTS,
        thresholds: Sequence[float] = (),
        **fields: Any,
    ) -> str:
        """Registers a model, multi-label if it has thresholds; returns the version's name."""
        self._count += 1
        name = f"{PROJECT}/models/vans/versions/{self._count}"
        key = f"models/{hashlib.sha256(onnx_bytes).hexdigest()}.onnx"
        self._store.put_named(key, onnx_bytes)
        known = ModelVersion(
            name=name,
            task_type=_task_type(concepts, thresholds),
            thresholds=thresholds,
            onnx_key=key,
            digest=hashlib.sha256(onnx_bytes).hexdigest(),
            concepts=concepts,
            embedding_digest=space,
            embedding_dimension=DIMENSION if space else 0,
        )
        known.MergeFrom(ModelVersion(**fields))
        self._versions[name] = known
        return name

    def add_detector(
        self, resize: ModelInput.Resize.ValueType = ModelInput.LETTERBOX, copies: int = 1, seen_share: float = 1.0
    ) -> str:
        """Registers `a_detector` without embeddings; returns the version's name."""
        signature = ModelSignature(
            input=ModelInput(height_px=96, width_px=160, resize=resize, colour_order=ModelInput.RGB),
            outputs=[ModelOutput(name="objects", dimensions=[2 * copies, 6])],
            object_selection=ObjectSelection(score_min=0.05, iou_max=0.6, objects_max=2 * copies),
        )
        return self.add(
            a_detector(copies, seen_share=seen_share),
            space="",
            concepts=["red", "green"],
            thresholds=[0.5, 0.5],
            task_type=TaskType.TASK_TYPE_DETECTION,
            signature=signature,
        )

    def add_segmenter(self, copies: int = 1) -> str:
        """Registers `a_segmenter` without embeddings; returns the version's name."""
        outputs = [
            ModelOutput(name="objects", dimensions=[2 * copies, 6]),
            ModelOutput(name="masks", dimensions=[2 * copies, 8, 8]),
        ]
        signature = ModelSignature(
            input=ModelInput(height_px=96, width_px=160, resize=ModelInput.LETTERBOX, colour_order=ModelInput.RGB),
            outputs=outputs,
            object_selection=ObjectSelection(score_min=0.05, iou_max=0.6, objects_max=2 * copies),
        )
        return self.add(
            a_segmenter(copies),
            space="",
            concepts=["red", "green"],
            thresholds=[0.5, 0.5],
            task_type=TaskType.TASK_TYPE_INSTANCE_SEGMENTATION,
            signature=signature,
        )

    def add_map_model(self, resize: ModelInput.Resize.ValueType = ModelInput.STRETCH) -> str:
        """Registers `a_map_model` without embeddings; returns the version's name."""
        signature = ModelSignature(
            input=ModelInput(height_px=96, width_px=160, resize=resize, colour_order=ModelInput.RGB),
            outputs=[
                ModelOutput(name="segmentation", dimensions=[0, 0]),
                ModelOutput(name="presence", dimensions=[2]),
                ModelOutput(name="overlap", dimensions=[2]),
            ],
        )
        return self.add(
            a_map_model(),
            space="",
            concepts=["red", "green"],
            thresholds=[0.5, 0.5],
            task_type=TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION,
            signature=signature,
        )

    def key(self, name: str) -> str:
        """Returns the key of a version's model file."""
        return self._versions[name].onnx_key

    def remove(self, name: str) -> ModelVersion:
        """Deletes a version like `DeleteModelVersion`; returns the deleted version."""
        return self._versions.pop(name)

    def GetModelVersion(self, request: GetModelVersionRequest, context: grpc.ServicerContext) -> ModelVersion:
        self.look()
        if request.name in self.unavailable:
            raise Unavailable("the registry is away")
        if request.name not in self._versions:
            raise missing(request.name)
        return self._versions[request.name]


def _task_type(concepts: Sequence[str], thresholds: Sequence[float]) -> TaskType.ValueType:
    if thresholds:
        return TaskType.TASK_TYPE_MULTI_LABEL
    return TaskType.TASK_TYPE_CLASSIFICATION if concepts else TaskType.TASK_TYPE_EMBEDDING


class FakeItems(ItemServiceServicer):
    """A fake ItemService whose images are in the object store.

    Attributes:
        look: called at each request for one item.
        datasets: those that exist.
        embeddings: of items, by name.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.look: Callable[[], Any] = lambda: None
        self.datasets = {DATASET}
        self.items: dict[str, Item] = {}
        self.embeddings: dict[str, ItemEmbedding] = {}

    def add(self, data: bytes, dataset: str = DATASET) -> Item:
        ref = self._store.put("media", data)
        item = Item(name=f"{dataset}/items/{len(self.items):026d}", split=Split.SPLIT_TRAIN)
        item.media.CopyFrom(Media(sha256=ref.sha256, object_key=ref.key, size_bytes=ref.size_bytes))
        self.items[item.name] = item
        self.datasets.add(dataset)
        return item

    def GetItem(self, request: GetItemRequest, context: grpc.ServicerContext) -> Item:
        self.look()
        if request.name not in self.items:
            raise missing(request.name)
        return self.items[request.name]

    def ListItems(self, request: ListItemsRequest, context: grpc.ServicerContext) -> ListItemsResponse:
        if request.parent not in self.datasets:
            raise missing(request.parent)
        names = sorted(name for name in self.items_of(request.parent) if name > request.page_token)
        page = names[: request.page_size or SIZE_DEFAULT]
        return ListItemsResponse(
            items=[self.items[name] for name in page],
            next_page_token=page[-1] if len(names) > len(page) else "",
            embeddings=[self.embeddings.get(name, ItemEmbedding()) for name in page] if request.embeddings else [],
        )

    def items_of(self, dataset: str) -> list[str]:
        """Returns the names of a dataset's items."""
        return [name for name in self.items if parent_of(name) == dataset]


class FakeDatasets(DatasetServiceServicer):
    """A fake DatasetService with the datasets of a fake ItemService, and the number of their items.

    Attributes:
        unavailable: datasets for which it returns Unavailable.
        task_types: of datasets that are not for classification.
    """

    def __init__(self, items: FakeItems) -> None:
        self._items = items
        self.unavailable: set[str] = set()
        self.task_types: dict[str, TaskType.ValueType] = {}

    def GetDataset(self, request: GetDatasetRequest, context: grpc.ServicerContext) -> Dataset:
        if request.name in self.unavailable:
            raise Unavailable("the datasets are away")
        if request.name not in self._items.datasets:
            raise missing(request.name)
        counts = DatasetCounts(item_count=len(self._items.items_of(request.name)))
        return Dataset(
            name=request.name,
            taxonomy=f"{PROJECT}/taxonomies/colours",
            counts=counts,
            task_type=self.task_types.get(request.name, TaskType.TASK_TYPE_CLASSIFICATION),
        )


def eventually(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """Polls `look` until its result is as wanted, or a deadline has passed; returns the result."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
    return found
