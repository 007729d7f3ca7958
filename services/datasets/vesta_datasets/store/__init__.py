"""Where the service keeps everything: PostgreSQL, one kind of thing a file, and nothing else knows SQL."""

from typing import Any

from vesta_common.clock import Clock
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.storage.postgres import Connection, Postgres

from vesta_datasets.store.datasets import Datasets
from vesta_datasets.store.items import Items
from vesta_datasets.store.pool import CandidatePool
from vesta_datasets.store.predictions import Predictions
from vesta_datasets.store.snapshots import Snapshots
from vesta_datasets.store.taxonomies import Taxonomies

SERVICE = "datasets"


class Store:
    """The service's tables. All that is kept in one transaction is told in it too: `publish`."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self.postgres = postgres
        self.clock = clock
        self.taxonomies = Taxonomies(clock)
        self.datasets = Datasets(clock)
        self.items = Items(clock)
        self.predictions = Predictions()
        self.pool = CandidatePool()
        self.snapshots = Snapshots(postgres)

    def publish(self, connection: Connection, subject: str, *payloads: Any) -> None:
        """Publishes events about one resource in the caller's transaction."""
        now = self.clock.now()
        outbox.publish(connection, *(new_event(SERVICE, subject, payload, now) for payload in payloads))
