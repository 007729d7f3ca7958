"""What the service does about events: an item that arrives is scored by every deployment that looks after its dataset."""

from collections.abc import Mapping

from vesta_common.consumer import Handler
from vesta_common.events import Event
from vesta_common.postgres import Connection

from vesta_serving.scorer import dataset_of
from vesta_serving.store import Store


class Reactions:
    """The handlers, one function an event."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> Mapping[str, Handler]:
        """By event type."""
        return {"vesta.datasets.item.v1.added": self.handle_item_added}

    def handle_item_added(self, connection: Connection, event: Event) -> None:
        """Remembers the item for scoring."""
        added = event.payload
        self._store.add_arrival(
            connection, dataset_of(added.item), added.item, added.media.object_key, added.media.sha256
        )
