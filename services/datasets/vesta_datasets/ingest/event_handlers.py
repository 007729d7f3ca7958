"""Event handlers: store accepted answers and predictions with their items."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import structlog
from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer import BatchHandler, Handler
from vesta_common.media.annotations import Terms, check_annotations
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.common.v1 import Annotation, Media
from vesta_contracts.datasets.v1 import AcceptedAnnotations, Dataset, ItemAnnotated
from vesta_contracts.serving.v1 import PredictionCreated

from vesta_datasets.items.annotations import with_shapes_kept
from vesta_datasets.store import Store
from vesta_datasets.store.items import AcceptResult
from vesta_datasets.store.predictions import ScoringModel
from vesta_datasets.task_types import task_type_of

log = structlog.get_logger()


class EventHandlers:
    """The event handlers, one method per event type."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def label_handlers(self) -> Mapping[str, Handler]:
        """Handlers of the events of the annotation service."""
        return {"vesta.annotation.task.v1.accepted": self.handle_task_accepted}

    def prediction_handlers(self) -> Mapping[str, BatchHandler]:
        """Handlers of predictions, in batches. They have a consumer group of their own, so that many predictions do not delay labels."""
        return {"vesta.serving.prediction.v1.created": self.handle_predictions_created}

    def handle_task_accepted(self, connection: Connection, event: Event) -> None:
        """Stores an accepted answer with its item and publishes ItemAnnotated, unless the item has later annotations.

        Raises:
            InvalidArgument: the answer violates a rule, for example because the rule is newer than the answer.
        """
        answer: TaskAccepted = event.payload
        annotations = self._store.items.whole(
            AcceptedAnnotations(
                annotations=answer.annotations, stored=answer.stored if answer.HasField("stored") else None
            )
        ).annotations
        item = self._store.items.find_locked(connection, answer.item)
        previous = item.accepted.annotations if item and item.accepted else ()
        accepted = AcceptedAnnotations(
            annotations=with_shapes_kept(annotations, previous),
            annotators=answer.annotators,
            reviewer=answer.reviewer,
            reviewed=bool(answer.reviewer),
            task=answer.task,
            model_version=answer.model_version,
            control=answer.control,
            accept_time=answer.accept_time,
        )
        outcome = AcceptResult.GONE
        if item is not None:
            dataset = self._store.datasets.get(connection, parent_of(answer.item), counted=False)
            self._check(connection, dataset, annotations, item.media)
            outcome = self._store.items.accept(connection, answer.item, accepted, task_type_of(dataset))
        if outcome is not AcceptResult.KEPT:
            log.warning("label_discarded", item=answer.item, task=answer.task, outcome=outcome.name)
            return
        reduced = self._store.items.reduced(answer.item, accepted)
        self._store.publish(connection, answer.item, ItemAnnotated(item=answer.item, accepted=reduced))

    def _check(self, connection: Connection, dataset: Dataset, annotations: Sequence[Annotation], media: Media) -> None:
        """Checks an answer against the taxonomy. An event with an invalid answer becomes a dead letter.

        Raises:
            InvalidArgument: the answer is invalid.
        """
        taxonomy = self._store.taxonomies.get(connection, dataset.taxonomy)
        check_annotations(annotations, media, Terms(taxonomy, dataset.task_type), "annotations")

    def handle_predictions_created(self, connection: Connection, events: Sequence[Event]) -> None:
        """Stores predictions and embeddings; those of consecutive events of one pass together. DatasetScored is published separately, see
        `scoring_progress`.
        """
        for (dataset, model, space), run in groupby((event.payload for event in events), _pass_of):
            entries = [entry for created in run for entry in created.predictions]
            predictions = [(entry.item, entry.prediction) for entry in entries]
            self._store.predictions.put(connection, dataset, model, predictions)
            embedded = [(entry.item, np.frombuffer(entry.embedding, "<f4")) for entry in entries if entry.embedding]
            if embedded:
                self._store.predictions.put_embeddings(connection, dataset, model, space, embedded)


def _pass_of(created: PredictionCreated) -> tuple[str, ScoringModel, str]:
    """Returns dataset, model and embedding space."""
    model = ScoringModel(created.model_version, created.deployment, created.generation)
    return created.dataset, model, created.embedding_digest
