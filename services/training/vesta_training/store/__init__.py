"""The database layer: PostgreSQL, one module per resource. No other package contains SQL."""

from vesta_common.clock import Clock
from vesta_common.storage.postgres import Postgres

from vesta_training.store.deleted_files import DeletedFiles
from vesta_training.store.models import Models
from vesta_training.store.pretrained_detectors import PretrainedDetectors
from vesta_training.store.publisher import SERVICE, Publisher
from vesta_training.store.recipes import Recipes
from vesta_training.store.run_queue import RunQueue
from vesta_training.store.runs import Runs
from vesta_training.store.studies import Studies

__all__ = ["SERVICE", "Store"]


class Store:
    """The tables of the service."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self.postgres = postgres
        self.clock = clock
        publisher = Publisher(clock)
        self.recipes = Recipes(clock)
        self.models = Models(clock, publisher)
        self.runs = Runs(postgres, clock, publisher)
        self.run_queue = RunQueue(postgres, clock, publisher, self.runs, self.models)
        self.deleted_files = DeletedFiles(postgres, clock)
        self.studies = Studies(clock)
        self.pretrained_detectors = PretrainedDetectors(clock)
