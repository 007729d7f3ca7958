"""Event handlers: an event that concerns a Loop schedules its next reconciliation."""

from collections.abc import Sequence, Set
from datetime import timedelta

from vesta_common.clock import Clock
from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer import BatchHandler
from vesta_common.resources.names import parent_of, project_of
from vesta_common.storage.postgres import Connection

from vesta_conductor import store

SOON = timedelta(milliseconds=100)  # after an event that a Loop waits for: a model, a deployment, scores
LATER = timedelta(
    milliseconds=500
)  # after events that arrive in bursts, so that a burst causes one reconciliation: items, answers


class EventHandlers:
    """The conductor's event handlers, one per event type. Each runs in the transaction that is passed to it, and schedules a Loop once,
    however many events concern it.

    Args:
        clock: determines when the Loops are due.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def handlers(self) -> dict[str, BatchHandler]:
        """Returns the handlers by event type."""
        return {
            "vesta.datasets.item.v1.created": self.handle_items_changed,
            "vesta.datasets.item.v1.annotated": self.handle_items_changed,
            "vesta.datasets.dataset.v1.scored": self.handle_datasets_scored,
            "vesta.annotation.task.v1.accepted": self.handle_tasks_decided,
            "vesta.annotation.task.v1.cancelled": self.handle_tasks_decided,
            "vesta.annotation.task.v1.rejected": self.handle_tasks_decided,
            "vesta.training.training_run.v1.succeeded": self.handle_training_runs_ended,
            "vesta.training.training_run.v1.measured": self.handle_training_runs_ended,
            "vesta.training.training_run.v1.failed": self.handle_training_runs_ended,
            "vesta.training.training_run.v1.cancelled": self.handle_training_runs_ended,
            "vesta.serving.deployment.v1.promoted": self.handle_deployments_changed,
            "vesta.serving.deployment.v1.rolled_back": self.handle_deployments_changed,
            "vesta.serving.deployment.v1.failed": self.handle_deployments_changed,
            "vesta.serving.deployment.v1.scored": self.handle_deployments_changed,
        }

    def handle_items_changed(self, connection: Connection, events: Sequence[Event]) -> None:
        """Schedules the Loops of the datasets: there are items to embed or to select, or there may be enough labels to train on."""
        self._touch_datasets(connection, {parent_of(event.payload.item) for event in events}, LATER)

    def handle_datasets_scored(self, connection: Connection, events: Sequence[Event]) -> None:
        """Schedules the Loops of the datasets: enough items may be scored or embedded."""
        scored = [event.payload for event in events]
        complete = {payload.dataset for payload in scored if payload.scored_count >= payload.item_count}
        self._touch_datasets(connection, complete, SOON)
        self._touch_datasets(connection, {payload.dataset for payload in scored} - complete, LATER)

    def handle_tasks_decided(self, connection: Connection, events: Sequence[Event]) -> None:
        """Schedules the Loops of the projects: annotators may have no tasks left."""
        self._touch_projects(connection, events, LATER)

    def handle_training_runs_ended(self, connection: Connection, events: Sequence[Event]) -> None:
        """Schedules the Loops of the projects: there may be a challenger, or an estimate of the labels that were saved."""
        self._touch_projects(connection, events, SOON)

    def handle_deployments_changed(self, connection: Connection, events: Sequence[Event]) -> None:
        """Schedules the Loops of the projects: another version may be serving."""
        self._touch_projects(connection, events, SOON)

    def _touch_datasets(self, connection: Connection, datasets: Set[str], delay: timedelta) -> None:
        for dataset in sorted(datasets):
            store.schedule_loops_of_dataset(connection, dataset, self._clock.now() + delay)

    def _touch_projects(self, connection: Connection, events: Sequence[Event], delay: timedelta) -> None:
        for project in sorted({project_of(event.subject) for event in events}):
            store.schedule_loops_of_project(connection, project, self._clock.now() + delay)
