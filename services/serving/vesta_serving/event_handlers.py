"""Event handlers: queue new items for scoring, and schedule the removal of deleted model versions from Triton's repository."""

from collections.abc import Mapping

from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer import Handler
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection

from vesta_serving.store import Store
from vesta_serving.triton.repository import whole_name


class EventHandlers:
    """The service's event handlers, one per event type."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the handlers by event type."""
        return {
            "vesta.datasets.item.v1.created": self.handle_item_created,
            "vesta.training.model_version.v1.deleted": self.handle_model_version_deleted,
        }

    def handle_item_created(self, connection: Connection, event: Event) -> None:
        """Queues the item for scoring."""
        added = event.payload
        self._store.scoring.add_arrival(
            connection, parent_of(added.item), added.item, added.media.object_key, added.media.sha256
        )

    def handle_model_version_deleted(self, connection: Connection, event: Event) -> None:
        """Schedules the removal of the version's model. The deployer removes it once no deployment needs it."""
        deleted = event.payload
        self._store.schedule_removal(connection, deleted.model_version, whole_name(deleted.digest))
