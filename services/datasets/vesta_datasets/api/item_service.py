"""ItemService: items, similarity search, and the selection of items to label next."""

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import grpc
import numpy as np
from google.api import httpbody_pb2
from google.protobuf import empty_pb2
from numpy.typing import NDArray
from vesta_common import trace
from vesta_common.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Violation
from vesta_common.media.annotations import Terms, check_annotations
from vesta_common.resources.methods import revise, run_once
from vesta_common.resources.names import parent_of, project_of
from vesta_common.resources.page_keys import by_creation, created_after
from vesta_common.resources.pages import read_page, within_bytes
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.packs import get_packed
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    BatchAnnotateItemsResponse,
    BatchCreateItemsRequest,
    BatchCreateItemsResponse,
    BatchGetItemsRequest,
    BatchGetItemsResponse,
    DeleteItemRequest,
    DownloadItemRequest,
    GetItemRequest,
    Item,
    ItemEmbedding,
    ItemServiceServicer,
    ItemVariant,
    ItemView,
    ListItemsRequest,
    ListItemsResponse,
    Neighbour,
    NewItem,
    SearchItemsRequest,
    SearchItemsResponse,
    SelectItemsRequest,
    SelectItemsResponse,
    Split,
    UpdateItemRequest,
)

from vesta_datasets.api.visibility import check_sees_predictions, visible, visible_filter
from vesta_datasets.ingest.add_items import DirectAnswer, accept_directly, add_items, known_media
from vesta_datasets.item_search import ItemSearch
from vesta_datasets.items.filters import item_filter
from vesta_datasets.selection.pool_builder import choose, drawn_at_random, strategy_name
from vesta_datasets.store import Store
from vesta_datasets.store.predictions import NearestQuery
from vesta_datasets.task_types import task_type_of

NEIGHBOURS_DEFAULT = 20
SELECTION_WAIT_MAX = timedelta(seconds=20)
CHUNK_BYTES = 256 * 1024
EMBEDDED_ITEMS_MAX = 256


class ItemService(ItemServiceServicer):
    """Creates, reads, updates, deletes and searches items, and selects the items to label next.

    Args:
        work_folder: of the files of search indexes; the system's temporary folder if None.
        wait_max: how long a selection waits for another one to finish.
    """

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        work_folder: Path | None = None,
        wait_max: timedelta = SELECTION_WAIT_MAX,
    ) -> None:
        self._store = store
        self._objects = objects
        self._wait_max = wait_max
        self._search = ItemSearch(store, work_folder=work_folder)
        self.selecting = threading.Lock()

    def BatchCreateItems(
        self, request: BatchCreateItemsRequest, context: grpc.ServicerContext
    ) -> BatchCreateItemsResponse:
        """Adds media as items. Callers that are not services can only add media that the project already has."""
        who, outside = trace.caller(), not trace.service()

        def add(connection: Connection) -> BatchCreateItemsResponse:
            items: Sequence[NewItem] = request.items
            if outside:
                items = known_media(self._store, connection, project_of(request.parent), items)
            created = add_items(self._store, connection, request.parent, items, who)
            return BatchCreateItemsResponse(items=created)

        return run_once(self._store.postgres, request, BatchCreateItemsResponse, add)

    def GetItem(self, request: GetItemRequest, context: grpc.ServicerContext) -> Item:
        with self._store.postgres.transaction() as connection:
            (item,) = visible([self._store.items.get(connection, request.name)])
        return item

    def BatchGetItems(self, request: BatchGetItemsRequest, context: grpc.ServicerContext) -> BatchGetItemsResponse:
        """Returns items of a dataset, in the order of the requested names."""
        _check_all_in(request.parent, request.names)
        with self._store.postgres.transaction() as connection:
            items = self._store.items.get_many(connection, request.names)
        return BatchGetItemsResponse(items=visible(items))

    def ListItems(self, request: ListItemsRequest, context: grpc.ServicerContext) -> ListItemsResponse:
        """Lists the items that match a filter, in order of creation."""
        page = read_page(request, EMBEDDED_ITEMS_MAX) if request.embeddings else read_page(request)
        where, names_only = visible_filter(request.filter), request.view == ItemView.ITEM_VIEW_NAME
        if request.embeddings:
            check_sees_predictions("do not request embeddings")
        with self._store.postgres.transaction() as connection:
            self._store.datasets.get(connection, request.parent, counted=False)
            rows = self._store.items.list_page(
                connection, request.parent, where, created_after(page), page.limit, names_only=names_only
            )
            items, token = within_bytes(page, rows).cut(rows, by_creation)
            names = [item.name for item in items] if request.embeddings else []
            embedded = self._store.predictions.find_embeddings(connection, names) if names else {}
        embeddings = [_embedding(*embedded[name]) if name in embedded else ItemEmbedding() for name in names]
        return ListItemsResponse(
            items=items if names_only else visible(items), next_page_token=token, embeddings=embeddings
        )

    def UpdateItem(self, request: UpdateItemRequest, context: grpc.ServicerContext) -> Item:
        """Updates the metadata of an item."""
        with self._store.postgres.transaction() as connection:
            self._store.items.lock(connection, [request.item.name])
            current = self._store.items.get(connection, request.item.name)
            updated = revise(current, request.item, request.update_mask, ("metadata",))
            self._store.items.update_metadata(connection, current.name, updated.metadata)
            return self._store.items.get(connection, current.name)

    def DeleteItem(self, request: DeleteItemRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes an item. Existing snapshots still contain it."""
        with self._store.postgres.transaction() as connection:
            self._store.datasets.get(connection, parent_of(request.name), lock=True, counted=False)
            self._store.items.lock(connection, [request.name])
            self._store.items.delete(connection, request.name)
        return empty_pb2.Empty()

    def DownloadItem(
        self, request: DownloadItemRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody]:
        """Streams the stored image, verified against its hash, or its thumbnail."""
        with self._store.postgres.transaction() as connection:
            media = self._store.items.get(connection, request.name).media
        if request.variant == ItemVariant.ITEM_VARIANT_THUMBNAIL:
            data, mime_type = get_packed(self._objects, media.thumbnail_key), "image/jpeg"
        else:
            data, mime_type = self._objects.get(media.object_key, sha256=media.sha256), media.mime_type
        for start in range(0, len(data), CHUNK_BYTES):
            yield httpbody_pb2.HttpBody(content_type=mime_type, data=data[start : start + CHUNK_BYTES])

    def BatchAnnotateItems(
        self, request: BatchAnnotateItemsRequest, context: grpc.ServicerContext
    ) -> BatchAnnotateItemsResponse:
        """Accepts annotations without a task. Either all are accepted or none is."""

        def annotate(connection: Connection) -> BatchAnnotateItemsResponse:
            dataset = self._store.datasets.get(connection, request.parent, counted=False)
            terms = Terms(self._store.taxonomies.get(connection, dataset.taxonomy), dataset.task_type)
            names = [entry.item for entry in request.items]
            _check_all_in(request.parent, names)
            items = self._store.items.lock(connection, names)
            for index, entry in enumerate(request.items):
                check_annotations(entry.annotations, items[entry.item].media, terms, f"items[{index}].annotations")
            answers = [
                DirectAnswer(entry.item, entry.annotations, entry.reviewed, item.control, item.accepted)
                for entry in request.items
                for item in (items[entry.item],)
            ]
            accept_directly(self._store, connection, task_type_of(dataset), answers, trace.caller())
            return BatchAnnotateItemsResponse(annotated_count=len(names))

        return run_once(self._store.postgres, request, BatchAnnotateItemsResponse, annotate)

    def SearchItems(self, request: SearchItemsRequest, context: grpc.ServicerContext) -> SearchItemsResponse:
        """Returns the nearest items by cosine distance."""
        check_sees_predictions("list items instead")
        where = item_filter(request.filter)
        with self._store.postgres.point_in_time() as connection:
            self._store.datasets.get(connection, request.parent, counted=False)
            if request.WhichOneof("query") == "item":
                self._store.items.get(connection, request.item)
                embedding = self._store.predictions.find_embedding(connection, request.item)
                if embedding is None:
                    raise _not_embedded(f"{request.item} has no embedding yet")
                space, query = embedding
            else:
                space = request.embedding.digest or self._store.predictions.find_space(connection, request.parent)
                query = np.asarray(request.embedding.values, np.float32)
                dimension = self._store.predictions.find_dimension(connection, request.parent, space)
                if not dimension:
                    which = "of the model of this embedding " if request.embedding.digest else ""
                    raise _not_embedded(f"the items of {request.parent} have no embeddings {which}yet")
                _check_query(query, dimension)
            limit = request.neighbours_max or NEIGHBOURS_DEFAULT
            found = self._search.nearest(connection, NearestQuery(request.parent, space, query, where, limit))
        return SearchItemsResponse(neighbours=[Neighbour(item=item, distance=far) for item, far in found.neighbours])

    def SelectItems(self, request: SelectItemsRequest, context: grpc.ServicerContext) -> SelectItemsResponse:
        """Selects the items to label next.

        One selection from the train split runs at a time, because it can hold hundreds of megabytes of embeddings.
        """
        if request.split not in (Split.SPLIT_UNSPECIFIED, Split.SPLIT_TRAIN):
            return self._draw(request)
        if not self.selecting.acquire(timeout=self._wait_max.total_seconds()):
            raise ResourceExhausted(
                "too many selections are running; retry later",
                reason="SELECTION_BUSY",
                retry_after=self._wait_max,
            )
        try:
            return self._select(request)
        finally:
            self.selecting.release()

    def _draw(self, request: SelectItemsRequest) -> SelectItemsResponse:
        split = Split.Name(request.split).removeprefix("SPLIT_")
        with self._store.postgres.transaction() as connection:
            self._store.datasets.get(connection, request.parent, counted=False)
            names, pool_count = self._store.pool.draw(
                connection, request.parent, split, request.excluded, request.count, request.seed
            )
        return drawn_at_random(names, pool_count)

    def _select(self, request: SelectItemsRequest) -> SelectItemsResponse:
        with self._store.postgres.transaction() as connection:
            dataset = self._store.datasets.get(connection, request.parent, counted=False)
            scored_by = self._store.datasets.find_scored_by(connection, request.parent)
            needs_embeddings = strategy_name(request.strategy) != "random"
            space = self._store.predictions.find_space(connection, request.parent) if needs_embeddings else ""
            candidates = self._store.pool.read(connection, request.parent, space, request.excluded, request.seed)
        return choose(
            candidates,
            strategy=request.strategy,
            count=request.count,
            control_share=request.control_share,
            seed=request.seed,
            scored_by=scored_by,
            task=task_type_of(dataset),
            whole=self._store.items.whole,
        )


def _check_all_in(dataset: str, names: Sequence[str]) -> None:
    """Raises NotFound for the first item that is not in the dataset."""
    for name in names:
        if parent_of(name) != dataset:
            raise NotFound(f"{name} is not in {dataset}", reason="RESOURCE_NOT_FOUND", metadata={"name": name})


def _embedding(space: str, values: NDArray[np.float32]) -> ItemEmbedding:
    return ItemEmbedding(digest=space, values=values.astype("<f4").tobytes())


def _check_query(query: NDArray[np.float32], dimension: int) -> None:
    what = ""
    if query.size != dimension:
        what = f"has {query.size} values, but the embeddings of the items have {dimension}"
    elif not np.isfinite(query).all() or not np.linalg.norm(query):
        what = "must be finite and not zero"
    if what:
        raise InvalidArgument(
            f"embedding {what}", reason="EMBEDDING_INVALID", violations=[Violation("embedding", what)]
        )


def _not_embedded(what: str) -> FailedPrecondition:
    return FailedPrecondition(f"{what}; deploy a model with this dataset in its `datasets`", reason="EMBEDDING_MISSING")
