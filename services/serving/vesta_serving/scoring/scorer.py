"""Scores datasets after a change of model, and new items, and publishes the predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import chain

import numpy as np
import structlog
from numpy.typing import NDArray
from vesta_common import trace
from vesta_common.clock import Clock
from vesta_common.errors import DataLoss, InvalidArgument, NotFound, is_transient
from vesta_common.events.outbox import EVENT_BYTES_MAX
from vesta_common.events.summaries import summarised
from vesta_common.leases import LeaseLost
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.media.model_input import UNREAD, InputFormat
from vesta_common.media.model_pictures import ModelPicture, model_picture
from vesta_common.media.model_signatures import PROBABILITIES
from vesta_common.resources.names import parent_of
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.datasets.v1 import (
    DatasetServiceStub,
    GetDatasetRequest,
    ItemServiceStub,
    ListItemsRequest,
    ListItemsResponse,
)
from vesta_contracts.serving.v1 import DeploymentScored, ItemPrediction, PredictionCreated

from vesta_serving.predictions.predictor import PredictedImage, Predictor, ServedModel
from vesta_serving.scoring.event_chunks import cut
from vesta_serving.store import Store
from vesta_serving.store.rows import Pass
from vesta_serving.store.scoring import Arrival, ClaimedArrival, ClaimedPass

EVENT_ITEMS_MAX = 64
PAGE_ITEMS = 256
FETCH_THREADS = 4
ASK_THREADS = 4

log = structlog.get_logger()


class Scorer:
    """Processes one page at a time. Any number of replicas may run. After a kill, at most one page is scored again.

    Args:
        media: the object store of the items' images.
        large: stores annotations that are too large for events.
        heartbeat_interval: between two renewals of a lease; by default a third of its duration.
    """

    def __init__(
        self,
        store: Store,
        predictor: Predictor,
        items: ItemServiceStub,
        datasets: DatasetServiceStub,
        media: ObjectStore,
        large: LargeAnnotations,
        clock: Clock,
        heartbeat_interval: timedelta | None = None,
    ) -> None:
        self._store = store
        self._predictor = predictor
        self._items = items
        self._datasets = datasets
        self._media = media
        self._large = large
        self._clock = clock
        self._heartbeat_interval = heartbeat_interval
        self._fetchers = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self._askers = ThreadPoolExecutor(ASK_THREADS, thread_name_prefix="ask")

    def step(self) -> bool:
        """Scores one page of a pass, or some new items; returns False if there is nothing to score or all of it is in backoff."""
        if claimed := self._store.scoring.claim_pass():
            with self._backing_off(
                claimed.deployment, claimed.dataset, partial(self._store.scoring.release_pass, claimed)
            ):
                self._score_page(claimed)
            return True
        if arrivals := self._store.scoring.claim_arrivals(EVENT_ITEMS_MAX):
            deployment, dataset = arrivals[0].deployment, parent_of(arrivals[0].item)
            first, *others = ({"traceparent": arrival.traceparent} for arrival in arrivals)
            with (
                trace.span("score_arrivals", first, also=others),
                self._backing_off(deployment, dataset, partial(self._store.scoring.release_arrivals, arrivals)),
            ):
                self._score_arrivals(deployment, dataset, arrivals)
            return True
        return False

    @contextmanager
    def _backing_off(self, deployment: str, dataset: str, release: Callable[[], None]) -> Iterator[None]:
        """Puts a deployment's work on a dataset into backoff if it fails. Catches any error, because other work must continue."""
        begin = self._clock.now()
        try:
            yield
        except LeaseLost as error:
            log.warning("scoring_taken_over", deployment=deployment, dataset=dataset, error=str(error))
            release()  # of a batch, the items that this worker still holds
        except Exception as error:
            transient = is_transient(error)
            log.warning(
                "scoring_postponed", deployment=deployment, dataset=dataset, error=str(error), exc_info=not transient
            )
            self._store.back_off(deployment, self._clock.now() - begin, dataset)
            release()

    def _score_page(self, claimed: ClaimedPass) -> None:
        with self._store.scoring.pass_heartbeat(claimed, self._heartbeat_interval):
            item_count, page, events = self._predict_page(claimed)
        done = not page.next_page_token
        with self._store.postgres.transaction() as connection:
            finished = self._store.scoring.advance_pass(
                connection, claimed, page.next_page_token, len(page.items), item_count, done=done
            )
            self._store.end_backoff(connection, claimed.deployment, claimed.dataset)
            for event in events:
                self._store.publish(connection, claimed.deployment, event)
            if finished:
                row = self._store.get(connection, claimed.deployment)
                scored = DeploymentScored(deployment=self._store.message(connection, row))
                self._store.publish(connection, row.name, summarised(scored))
                log.info("deployment_scored", deployment=row.name, version=row.stable)

    def _predict_page(self, claimed: ClaimedPass) -> tuple[int, ListItemsResponse, list[PredictionCreated]]:
        """Returns the number of items of the dataset, the next page, and the events with its predictions."""
        served = self._predictor.served_model(claimed.deployment)
        if served.row.generation != claimed.generation:
            self._predictor.forget(claimed.deployment)
            served = self._predictor.served_model(claimed.deployment)
        item_count, page = self._page(claimed)
        arrivals = [
            Arrival(claimed.deployment, item.name, item.media.object_key, item.media.sha256) for item in page.items
        ]
        embeddings = _stored_embeddings(served, page)
        results = self._from_embeddings(served, embeddings)
        pictured = [arrival for arrival in arrivals if arrival.item not in results]
        # Items without an embedding always get one: the event of the version before may have arrived too late to be accepted.
        results |= self._from_pictures(
            served, pictured, embeds=any(arrival.item not in embeddings for arrival in pictured)
        )
        return item_count, page, self._events(served, claimed.dataset, arrivals, claimed.generation, results)

    def _page(self, claimed: Pass) -> tuple[int, ListItemsResponse]:
        """Returns the number of items and the next page; an empty last page if the dataset was deleted."""
        item_count = claimed.item_count
        try:
            if not claimed.page_token:
                dataset = self._datasets.GetDataset(GetDatasetRequest(name=claimed.dataset))
                item_count = max(1, dataset.counts.item_count)
            return item_count, self._items.ListItems(
                ListItemsRequest(
                    parent=claimed.dataset,
                    page_size=PAGE_ITEMS,
                    page_token=claimed.page_token,
                    embeddings=not claimed.embeds,
                )
            )
        except NotFound:
            log.warning("dataset_deleted", deployment=claimed.deployment, dataset=claimed.dataset)
            return item_count, ListItemsResponse()

    def _score_arrivals(self, deployment: str, dataset: str, arrivals: Sequence[ClaimedArrival]) -> None:
        """Scores new items of one deployment and dataset. No transaction is open meanwhile, because it would block the outbox."""
        with self._store.scoring.arrivals_heartbeat(arrivals, self._heartbeat_interval):
            # Read the current version: an item that arrived too late for a pass must not be scored by the version before.
            self._predictor.forget(deployment)
            served = self._predictor.served_model(deployment)
            results = self._from_pictures(served, arrivals, embeds=True)
            events = self._events(served, dataset, arrivals, served.row.generation, results)
        with self._store.postgres.transaction() as connection:
            self._store.scoring.delete_arrivals(connection, arrivals)
            self._store.end_backoff(connection, deployment, dataset)
            for event in events:
                self._store.publish(connection, deployment, event)

    def _from_embeddings(
        self, served: ServedModel, embeddings: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, PredictedImage]:
        """Predicts items from their embeddings with the model's head; returns nothing if the model has no head of its own."""
        head = served.parts.head
        if head is None or not embeddings:
            return {}
        outputs = {PROBABILITIES: head.probabilities(np.stack(list(embeddings.values())))}
        results = self._predictor.apply_policy(served, outputs, [UNREAD] * len(embeddings))
        return dict(zip(embeddings, results, strict=True))

    def _from_pictures(
        self, served: ServedModel, arrivals: Sequence[Arrival], *, embeds: bool
    ) -> dict[str, PredictedImage]:
        """Predicts items from their images; leaves out items whose image is missing or broken."""
        pictures = list(self._fetchers.map(partial(self._picture, served.version.input), arrivals))
        readable = [
            (arrival, picture) for arrival, picture in zip(arrivals, pictures, strict=True) if picture is not None
        ]
        chunks = [readable[start : start + EVENT_ITEMS_MAX] for start in range(0, len(readable), EVENT_ITEMS_MAX)]
        ask = trace.carried(
            lambda chunk: self._predictor.predict(served, [picture for _, picture in chunk], embeds=embeds)
        )
        results = self._askers.map(ask, chunks)
        return {
            arrival.item: result for (arrival, _), result in zip(readable, chain.from_iterable(results), strict=True)
        }

    def _picture(self, declared: InputFormat, arrival: Arrival) -> ModelPicture | None:
        try:
            return model_picture(self._media.get(arrival.object_key, sha256=arrival.sha256), declared)
        except (NotFound, DataLoss, InvalidArgument) as error:
            log.warning("item_unreadable", item=arrival.item, error=str(error))
            return None

    def _events(
        self,
        served: ServedModel,
        dataset: str,
        arrivals: Sequence[Arrival],
        generation: int,
        results: Mapping[str, PredictedImage],
    ) -> list[PredictionCreated]:
        """Returns the events with the predictions for these items, in order. Large annotations are stored as objects."""
        common = PredictionCreated(
            deployment=served.row.name,
            dataset=dataset,
            model_version=served.row.stable,
            generation=generation,
            embedding_digest=served.version.model.embedding_digest,
        )
        predictions = [
            ItemPrediction(
                item=arrival.item,
                prediction=self._large.reduced(arrival.item, result.prediction),
                embedding=result.embedding.tobytes(),
            )
            for arrival in arrivals
            if (result := results.get(arrival.item))
        ]
        parts = cut(predictions, EVENT_ITEMS_MAX, EVENT_BYTES_MAX - common.ByteSize())
        return [_with(common, part) for part in parts]


def _stored_embeddings(served: ServedModel, page: ListItemsResponse) -> dict[str, NDArray[np.float32]]:
    """Returns the embeddings in the model's embedding space, by item; none if they were not requested or the model has none."""
    digest = served.version.model.embedding_digest
    if not digest:  # the model has no embeddings
        return {}
    return {
        item.name: np.frombuffer(embedding.values, "<f4")
        for item, embedding in zip(page.items, page.embeddings, strict=bool(page.embeddings))
        if embedding.digest == digest
    }


def _with(common: PredictionCreated, predictions: Sequence[ItemPrediction]) -> PredictionCreated:
    event = PredictionCreated(predictions=predictions)
    event.MergeFrom(common)
    return event
