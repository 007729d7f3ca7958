"""Event handlers: an event that concerns a Loop schedules its next reconciliation."""

from datetime import timedelta

from vesta_common.clock import Clock
from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer import Handler
from vesta_common.resources.names import parent_of, project_of
from vesta_common.storage.postgres import Connection

from vesta_conductor import store

SOON = timedelta(milliseconds=100)  # after an event that a Loop waits for: a model, a deployment, scores
LATER = timedelta(
    milliseconds=500
)  # after events that arrive in bursts, so that a burst causes one reconciliation: items, answers


class EventHandlers:
    """The conductor's event handlers, one per event type. Each runs in the transaction that is passed to it.

    Args:
        clock: determines when the Loops are due.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """Returns the handlers by event type."""
        return {
            "vesta.datasets.item.v1.created": self.handle_item_created,
            "vesta.datasets.item.v1.annotated": self.handle_item_annotated,
            "vesta.datasets.dataset.v1.scored": self.handle_dataset_scored,
            "vesta.annotation.task.v1.accepted": self.handle_task_decided,
            "vesta.annotation.task.v1.cancelled": self.handle_task_decided,
            "vesta.annotation.task.v1.rejected": self.handle_task_decided,
            "vesta.training.training_run.v1.succeeded": self.handle_training_run_ended,
            "vesta.training.training_run.v1.measured": self.handle_training_run_ended,
            "vesta.training.training_run.v1.failed": self.handle_training_run_ended,
            "vesta.training.training_run.v1.cancelled": self.handle_training_run_ended,
            "vesta.serving.deployment.v1.promoted": self.handle_deployment_changed,
            "vesta.serving.deployment.v1.rolled_back": self.handle_deployment_changed,
            "vesta.serving.deployment.v1.failed": self.handle_deployment_changed,
            "vesta.serving.deployment.v1.scored": self.handle_deployment_changed,
        }

    def handle_item_created(self, connection: Connection, event: Event) -> None:
        """Schedules the Loops of the dataset: there are items to embed or to select."""
        self._touch_dataset(connection, parent_of(event.payload.item), LATER)

    def handle_item_annotated(self, connection: Connection, event: Event) -> None:
        """Schedules the Loops of the dataset: there may be enough labels to train on."""
        self._touch_dataset(connection, parent_of(event.payload.item), LATER)

    def handle_dataset_scored(self, connection: Connection, event: Event) -> None:
        """Schedules the Loops of the dataset: enough items may be scored or embedded."""
        scored_all = event.payload.scored_count >= event.payload.item_count
        self._touch_dataset(connection, event.payload.dataset, SOON if scored_all else LATER)

    def handle_task_decided(self, connection: Connection, event: Event) -> None:
        """Schedules the Loops of the project: annotators may have no tasks left."""
        self._touch_project(connection, event, LATER)

    def handle_training_run_ended(self, connection: Connection, event: Event) -> None:
        """Schedules the Loops of the project: there may be a challenger, or an estimate of the labels that were saved."""
        self._touch_project(connection, event, SOON)

    def handle_deployment_changed(self, connection: Connection, event: Event) -> None:
        """Schedules the Loops of the project: another version may be serving."""
        self._touch_project(connection, event, SOON)

    def _touch_dataset(self, connection: Connection, dataset: str, delay: timedelta) -> None:
        store.schedule_loops_of_dataset(connection, dataset, self._clock.now() + delay)

    def _touch_project(self, connection: Connection, event: Event, delay: timedelta) -> None:
        store.schedule_loops_of_project(connection, project_of(event.subject), self._clock.now() + delay)
