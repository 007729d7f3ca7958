"""The database layer: PostgreSQL, one module per resource. No other package contains SQL."""

from collections.abc import Iterable
from typing import Any

from vesta_common.clock import Clock
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_events
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.storage.postgres import Connection, Postgres

from vesta_datasets.store.datasets import Datasets
from vesta_datasets.store.items import Items
from vesta_datasets.store.operations import StoredOperations
from vesta_datasets.store.pool import CandidatePool
from vesta_datasets.store.predictions import Predictions
from vesta_datasets.store.search_indexes import SearchIndexes
from vesta_datasets.store.snapshots import Snapshots
from vesta_datasets.store.taxonomies import Taxonomies

SERVICE = "datasets"


class Store:
    """The tables of the service. `publish` writes events to the outbox in the transaction of the change.

    Args:
        large: stores annotations that are too large for rows and events.
    """

    def __init__(self, postgres: Postgres, clock: Clock, large: LargeAnnotations) -> None:
        self.postgres = postgres
        self.clock = clock
        self.taxonomies = Taxonomies(clock)
        self.datasets = Datasets(clock)
        self.items = Items(clock, large)
        self.predictions = Predictions(large)
        self.search_indexes = SearchIndexes()
        self.pool = CandidatePool()
        self.snapshots = Snapshots(postgres, large)
        self.operations = StoredOperations(postgres, clock)

    def publish(self, connection: Connection, subject: str, *payloads: Any) -> None:
        """Publishes events about a resource, in the transaction of the caller."""
        self.publish_all(connection, ((subject, payload) for payload in payloads))

    def publish_all(self, connection: Connection, events: Iterable[tuple[str, Any]]) -> None:
        """Publishes events about several resources, given as subject and payload, in the transaction of the caller."""
        outbox.publish(connection, *new_events(SERVICE, events, self.clock.now()))
