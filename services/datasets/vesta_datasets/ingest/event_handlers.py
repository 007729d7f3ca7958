"""Event handlers: store accepted answers and predictions with their items."""

from collections.abc import Mapping

import numpy as np
import structlog
from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer import Handler
from vesta_common.media.annotations import Terms, check_annotations
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.common.v1 import Media
from vesta_contracts.datasets.v1 import AcceptedAnnotations, ItemAnnotated
from vesta_contracts.serving.v1 import PredictionCreated

from vesta_datasets.items.annotations import with_shapes_kept
from vesta_datasets.store import Store
from vesta_datasets.store.items import AcceptResult
from vesta_datasets.store.predictions import ScoringModel

log = structlog.get_logger()


class EventHandlers:
    """The event handlers, one method per event type."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def label_handlers(self) -> Mapping[str, Handler]:
        """Handlers of the events of the annotation service."""
        return {"vesta.annotation.task.v1.accepted": self.handle_task_accepted}

    def prediction_handlers(self) -> Mapping[str, Handler]:
        """Handlers of predictions. They have a consumer group of their own, so that many predictions do not delay labels."""
        return {"vesta.serving.prediction.v1.created": self.handle_prediction_created}

    def handle_task_accepted(self, connection: Connection, event: Event) -> None:
        """Stores an accepted answer with its item and publishes ItemAnnotated, unless the item has later annotations.

        Raises:
            InvalidArgument: the answer violates a rule, for example because the rule is newer than the answer.
        """
        answer: TaskAccepted = event.payload
        item = self._store.items.find_locked(connection, answer.item)
        previous = item.accepted.annotations if item and item.accepted else ()
        accepted = AcceptedAnnotations(
            annotations=with_shapes_kept(answer.annotations, previous),
            annotators=answer.annotators,
            reviewer=answer.reviewer,
            reviewed=bool(answer.reviewer),
            task=answer.task,
            model_version=answer.model_version,
            control=answer.control,
            accept_time=answer.accept_time,
        )
        if item is not None:
            self._check(connection, answer, item.media)
        outcome = self._store.items.accept(connection, answer.item, accepted)
        if outcome is not AcceptResult.KEPT:
            log.warning("label_discarded", item=answer.item, task=answer.task, outcome=outcome.name)
            return
        self._store.publish(connection, answer.item, ItemAnnotated(item=answer.item, accepted=accepted))

    def _check(self, connection: Connection, answer: TaskAccepted, media: Media) -> None:
        """Checks an answer against the taxonomy. An event with an invalid answer becomes a dead letter.

        Raises:
            InvalidArgument: the answer is invalid.
        """
        dataset = self._store.datasets.get(connection, parent_of(answer.item), counted=False)
        taxonomy = self._store.taxonomies.get(connection, dataset.taxonomy)
        check_annotations(answer.annotations, Terms(taxonomy, media, dataset.task_type), "annotations")

    def handle_prediction_created(self, connection: Connection, event: Event) -> None:
        """Stores scores and embeddings. DatasetScored is published separately, see `scoring_progress`."""
        created: PredictionCreated = event.payload
        model = ScoringModel(created.model_version, created.deployment, created.generation)
        scores = [(entry.item, entry.scores) for entry in created.predictions]
        self._store.predictions.put_scores(connection, created.dataset, model, scores)
        embedded = [
            (entry.item, np.frombuffer(entry.embedding, "<f4")) for entry in created.predictions if entry.embedding
        ]
        if embedded:
            self._store.predictions.put_embeddings(
                connection, created.dataset, model, created.embedding_digest, embedded
            )
