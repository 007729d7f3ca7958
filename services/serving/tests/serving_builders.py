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
from vesta_common.media.model_input import SQUARE
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
from vesta_serving.triton.model import TritonModel

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


def a_detector(height_px: int = 96, width_px: int = 160) -> bytes:
    """From uint8 `(N, height, width, 3)` to `objects` `(N, 2, 6)`: the box of all red pixels as a "red" with the score of the reddest, and
    padding.
    """
    by_column, by_row, everywhere = [1, 3], [2, 3], [1, 2]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Split", ["floats"], ["r", "g", "b"], axis=3, num_outputs=3),
        helper.make_node("Less", ["g", "dark"], ["is_not_green"]),
        helper.make_node("Greater", ["r", "bright"], ["is_bright"]),
        helper.make_node("And", ["is_bright", "is_not_green"], ["is_red"]),
        helper.make_node("Cast", ["is_red"], ["red"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["red", "by_column"], ["columns"], keepdims=0),
        helper.make_node("ReduceMax", ["red", "by_row"], ["rows"], keepdims=0),
        *(
            helper.make_node("ArgMax", [source], [name], axis=1, select_last_index=is_last)
            for source, name, is_last in (
                ("columns", "left", 0),
                ("rows", "top", 0),
                ("columns", "last_x", 1),
                ("rows", "last_y", 1),
            )
        ),
        helper.make_node("Concat", ["left", "top", "last_x", "last_y"], ["corners"], axis=1),
        helper.make_node("Cast", ["corners"], ["first_and_last"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["first_and_last", "half_open"], ["box"]),
        helper.make_node("Mul", ["red", "r"], ["redness"]),
        helper.make_node("ReduceMax", ["redness", "everywhere"], ["reddest"], keepdims=0),
        helper.make_node("Div", ["reddest", "full"], ["score"]),
        helper.make_node("Mul", ["score", "zero"], ["number"]),
        helper.make_node("Concat", ["box", "score", "number"], ["object"], axis=1),
        helper.make_node("Unsqueeze", ["object", "one"], ["alone"]),
        helper.make_node("Pad", ["alone", "padding"], ["objects"]),
    ]
    constants = {
        "dark": np.float32(60),
        "bright": np.float32(90),
        "full": np.float32(255),
        "zero": np.float32(0),
        "half_open": np.array([0, 0, 1, 1], np.float32),
        "by_column": np.array(by_column),
        "by_row": np.array(by_row),
        "everywhere": np.array(everywhere),
        "one": np.array([1]),
        "padding": np.array([0, 0, 0, 0, 1, 0]),
    }
    graph = helper.make_graph(
        nodes,
        "red box",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", height_px, width_px, 3])],
        [helper.make_tensor_value_info("objects", TensorProto.FLOAT, ["N", 2, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def a_triton_model(name: str) -> TritonModel:
    """The models of these builders in Triton, served whole."""
    outputs = (
        ModelOutput(name="probabilities", dimensions=[len(CONCEPTS)]),
        ModelOutput(name="embedding", dimensions=[DIMENSION]),
    )
    return TritonModel(name, SQUARE, outputs)


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
            task="multilabel" if thresholds else "classification",
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

    def add_detector(self, resize: ModelInput.Resize.ValueType = ModelInput.LETTERBOX) -> str:
        """Registers `a_detector` without embeddings; returns the version's name."""
        signature = ModelSignature(
            input=ModelInput(height_px=96, width_px=160, resize=resize, colour_order=ModelInput.RGB),
            outputs=[ModelOutput(name="objects", dimensions=[2, 6])],
            object_selection=ObjectSelection(score_min=0.05, iou_max=0.6, objects_max=2),
        )
        return self.add(
            a_detector(),
            space="",
            concepts=["red", "green"],
            thresholds=[0.5, 0.5],
            task_type=TaskType.TASK_TYPE_DETECTION,
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
