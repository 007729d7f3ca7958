"""What others tell: anything that touches a Loop brings its next look forward."""

from datetime import timedelta

from vesta_common.clock import Clock
from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer import Handler
from vesta_common.resources.names import parent_of, project_of
from vesta_common.storage.postgres import Connection

from vesta_conductor.store import queries

SOON = timedelta(milliseconds=100)  # after what a Loop waits for: a model, a deployment, scores
LATER = timedelta(milliseconds=500)  # after what comes in crowds, so that a crowd brings one look: items, answers


class Reactions:
    """The conductor's handlers: one a kind of event, each in the transaction it is given.

    Args:
        clock: tells when an event is handled, from which its Loops are due.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """By event type."""
        return {
            "vesta.datasets.item.v1.added": self.handle_item_added,
            "vesta.datasets.item.v1.annotated": self.handle_item_annotated,
            "vesta.datasets.dataset.v1.scored": self.handle_dataset_scored,
            "vesta.annotation.task.v1.accepted": self.handle_task_decided,
            "vesta.annotation.task.v1.cancelled": self.handle_task_decided,
            "vesta.annotation.task.v1.rejected": self.handle_task_decided,
            "vesta.training.training_run.v1.succeeded": self.handle_training_run_ended,
            "vesta.training.training_run.v1.failed": self.handle_training_run_ended,
            "vesta.training.training_run.v1.cancelled": self.handle_training_run_ended,
            "vesta.serving.deployment.v1.promoted": self.handle_deployment_changed,
            "vesta.serving.deployment.v1.rolled_back": self.handle_deployment_changed,
            "vesta.serving.deployment.v1.failed": self.handle_deployment_changed,
            "vesta.serving.deployment.v1.scored": self.handle_deployment_changed,
        }

    def handle_item_added(self, connection: Connection, event: Event) -> None:
        """There is something to embed, or to choose from."""
        self._touch_dataset(connection, parent_of(event.payload.item), LATER)

    def handle_item_annotated(self, connection: Connection, event: Event) -> None:
        """There may be enough to learn from."""
        self._touch_dataset(connection, parent_of(event.payload.item), LATER)

    def handle_dataset_scored(self, connection: Connection, event: Event) -> None:
        """The pool may be scored, or embedded, far enough."""
        scored_all = event.payload.scored_count >= event.payload.item_count
        self._touch_dataset(connection, event.payload.dataset, SOON if scored_all else LATER)

    def handle_task_decided(self, connection: Connection, event: Event) -> None:
        """Experts may have run out of tasks."""
        self._touch_project(connection, event, LATER)

    def handle_training_run_ended(self, connection: Connection, event: Event) -> None:
        """A challenger may be there."""
        self._touch_project(connection, event, SOON)

    def handle_deployment_changed(self, connection: Connection, event: Event) -> None:
        """Another version may answer."""
        self._touch_project(connection, event, SOON)

    def _touch_dataset(self, connection: Connection, dataset: str, delay: timedelta) -> None:
        queries.queue_loops_of_dataset(connection, dataset=dataset, due_time=self._clock.now() + delay)

    def _touch_project(self, connection: Connection, event: Event, delay: timedelta) -> None:
        queries.queue_loops_of_project(
            connection, project=project_of(event.subject), due_time=self._clock.now() + delay
        )
