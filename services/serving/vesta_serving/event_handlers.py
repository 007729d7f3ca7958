"""What the service does about events: new items are scored, and a deleted model version is removed from Triton's repository."""

from collections.abc import Mapping

from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer import Handler
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection

from vesta_serving.store import Store
from vesta_serving.triton.repository import triton_name


class Reactions:
    """The handlers, one function an event."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> Mapping[str, Handler]:
        """By event type."""
        return {
            "vesta.datasets.item.v1.added": self.handle_item_added,
            "vesta.training.model_version.v1.deleted": self.handle_model_version_deleted,
        }

    def handle_item_added(self, connection: Connection, event: Event) -> None:
        """Remembers the item for scoring."""
        added = event.payload
        self._store.add_arrival(
            connection, parent_of(added.item), added.item, added.media.object_key, added.media.sha256
        )

    def handle_model_version_deleted(self, connection: Connection, event: Event) -> None:
        """Leaves what Triton has of the version to the deployer, which removes it once no deployment needs it."""
        deleted = event.payload
        self._store.remove_later(connection, triton_name(deleted.digest), deleted.model_version)
