"""The prediction log: buffering while the database is unavailable, rejected entries, and retention."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from serving_builders import PROJECT
from vesta_common.clock import ManualClock
from vesta_common.ids import new_id
from vesta_common.storage.postgres import Postgres
from vesta_contracts.serving.v1 import Prediction
from vesta_serving.predictions.prediction_log import LINES_TOGETHER_MAX, PredictionLog
from vesta_serving.store import Store
from vesta_serving.store.logged_predictions import LoggedPredictions

DEPLOYMENT = f"{PROJECT}/deployments/vans"
KEEP = timedelta(days=30)


class TroubledTable(LoggedPredictions):
    """A table whose inserts fail while `failure` is set."""

    failure: Exception | None = None

    def append(self, predictions: Sequence[tuple[str, Prediction]]) -> None:
        if self.failure:
            raise self.failure
        super().append(predictions)


class Log:
    """A log on a real database."""

    def __init__(self, postgres: Postgres) -> None:
        self.clock, self.metrics = ManualClock(), CollectorRegistry()
        self.store = Store(postgres, self.clock)
        self.table = self.store.logged_predictions = TroubledTable(postgres, self.clock)
        self.log = PredictionLog(self.store, self.clock, self.metrics, KEEP)

    def add(self, count: int) -> None:
        for _ in range(count):
            self.log.add(DEPLOYMENT, Prediction(name=f"{DEPLOYMENT}/predictions/{new_id()}"))

    def count(self) -> int:
        with self.store.postgres.transaction() as connection:
            row = connection.execute("SELECT count(*) AS count FROM predictions").fetchone()
        return int(row["count"]) if row else 0

    def dropped(self) -> float | None:
        return self.metrics.get_sample_value("vesta_serving_log_lines_dropped_total")


@pytest.fixture
def kept(service_settings: Callable[[str], dict[str, Any]]) -> Iterator[Log]:
    settings = service_settings("serving")
    postgres = Postgres(settings["postgres_url"], settings["postgres_schema"]).open()
    postgres.migrate("vesta_serving")
    yield Log(postgres)
    postgres.close()


def test_entries_wait_while_the_database_is_unavailable(kept: Log) -> None:
    kept.add(3)
    kept.table.failure = psycopg.OperationalError("away")
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError):
            kept.log.step()
    kept.table.failure = None
    kept.add(2)
    kept.log.step()

    assert (kept.count(), kept.dropped()) == (5, 0)


def test_entries_that_the_database_rejects_are_counted_and_do_not_block_others(kept: Log) -> None:
    kept.add(3)
    kept.table.failure = psycopg.DataError("no text")
    with pytest.raises(psycopg.DataError):
        kept.log.step()
    kept.table.failure = None
    kept.add(2)
    kept.log.step()

    assert (kept.count(), kept.dropped()) == (2, 3)


def test_stopping_writes_all_waiting_entries(kept: Log) -> None:
    kept.add(LINES_TOGETHER_MAX + 5)
    kept.log.flush()

    assert kept.count() == LINES_TOGETHER_MAX + 5


def test_old_entries_are_deleted_in_batches(kept: Log) -> None:
    kept.add(3)
    kept.log.flush()
    kept.clock.advance(KEEP + timedelta(seconds=1))
    kept.add(1)
    kept.log.flush()

    assert kept.table.prune(kept.clock.now() - KEEP, 2) == 2
    assert (kept.log.prune(), kept.count()) == (False, 1)
