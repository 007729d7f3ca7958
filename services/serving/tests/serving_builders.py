"""Builders for the tests: tiny ONNX models, images, and fake services."""

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from vesta_common.errors import Unavailable
from vesta_common.resources.methods import missing
from vesta_common.resources.names import parent_of
from vesta_common.resources.pages import SIZE_DEFAULT
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.common.v1 import Media
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
from vesta_contracts.training.v1 import GetModelVersionRequest, ModelServiceServicer, ModelVersion

PROJECT = "projects/acme"
DATASET = f"{PROJECT}/datasets/vans"
CONCEPTS = ("red", "green", "blue")
DIMENSION = 4
DEADLINE_SECONDS = 30.0


def an_onnx(scale: float = 8.0, *, not_a_number: bool = False, concept_count: int = len(CONCEPTS)) -> bytes:
    """From uint8 `(N, 256, 256, 3)` to `probabilities` `(N, C)`, softmax of the mean colour, and `embedding` `(N, 4)` of unit length."""
    nodes = [
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("MatMul", ["probabilities", "spread"], ["wide"]),
        helper.make_node("LpNormalization", ["wide"], ["embedding"], axis=1, p=2),
    ]
    constants = {
        "weights": np.eye(3, concept_count, dtype=np.float32) * scale / 255,
        "spread": np.ones((concept_count, DIMENSION), np.float32) * (np.nan if not_a_number else 1.0),
    }
    return _onnx_of_colour(nodes, constants, concept_count)


def an_onnx_with_a_head(scale: float = 8.0, *, shift: float = 0.1) -> bytes:
    """Like `an_onnx`, but the probabilities depend on the embedding alone, as in models from training.

    Args:
        scale: of the head.
        shift: of the backbone.
    """
    nodes = [
        helper.make_node("Gemm", ["colour", "spread", "spread_bias"], ["wide"]),
        helper.make_node("LpNormalization", ["wide"], ["embedding"], axis=1, p=2),
        helper.make_node("Gemm", ["embedding", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {
        "spread": np.eye(3, DIMENSION, dtype=np.float32),
        "spread_bias": np.full(DIMENSION, shift, np.float32),
        "weights": np.eye(DIMENSION, len(CONCEPTS), dtype=np.float32) * scale,
        "bias": np.array([0.3, 0.2, 0.1], np.float32),
    }
    return _onnx_of_colour(nodes, constants, len(CONCEPTS))


def an_onnx_of_several_labels(scale: float = 1.0) -> bytes:
    """Like `an_onnx`, but each colour has an independent probability: its share of full brightness, times `scale`, at most 1."""
    nodes = [
        helper.make_node("MatMul", ["colour", "weights"], ["brightness"]),
        helper.make_node("Clip", ["brightness", "zero", "one"], ["probabilities"]),
        helper.make_node("MatMul", ["colour", "spread"], ["wide"]),
        helper.make_node("LpNormalization", ["wide"], ["embedding"], axis=1, p=2),
    ]
    constants = {
        "weights": np.eye(3, dtype=np.float32) * scale / 255,
        "zero": np.array(0.0, np.float32),
        "one": np.array(1.0, np.float32),
        "spread": np.ones((3, DIMENSION), np.float32),
    }
    return _onnx_of_colour(nodes, constants, len(CONCEPTS))


def _onnx_of_colour(nodes: Sequence[Any], constants: Mapping[str, Any], concept_count: int) -> bytes:
    """A model that reduces an image to its mean `colour`, from which the nodes continue."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats", "axes"], ["colour"], keepdims=0),
            *nodes,
        ],
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 256, 256, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", concept_count]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIMENSION]),
        ],
        [
            numpy_helper.from_array(value, name)
            for name, value in {"axes": np.array([1, 2], np.int64), **constants}.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


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
    ) -> str:
        """Registers a model, multi-label if it has thresholds; returns the version's name."""
        self._count += 1
        name = f"{PROJECT}/models/vans/versions/{self._count}"
        key = f"models/{hashlib.sha256(onnx_bytes).hexdigest()}.onnx"
        self._store.put_named(key, onnx_bytes)
        self._versions[name] = ModelVersion(
            name=name,
            task="multilabel" if thresholds else "classification",
            thresholds=thresholds,
            onnx_key=key,
            digest=hashlib.sha256(onnx_bytes).hexdigest(),
            concepts=concepts,
            embedding_digest=space,
            embedding_dimension=DIMENSION,
        )
        return name

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
    """

    def __init__(self, items: FakeItems) -> None:
        self._items = items
        self.unavailable: set[str] = set()

    def GetDataset(self, request: GetDatasetRequest, context: grpc.ServicerContext) -> Dataset:
        if request.name in self.unavailable:
            raise Unavailable("the datasets are away")
        if request.name not in self._items.datasets:
            raise missing(request.name)
        counts = DatasetCounts(item_count=len(self._items.items_of(request.name)))
        return Dataset(name=request.name, taxonomy=f"{PROJECT}/taxonomies/colours", counts=counts)


def eventually(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """Polls `look` until its result is as wanted, or a deadline has passed; returns the result."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
    return found
