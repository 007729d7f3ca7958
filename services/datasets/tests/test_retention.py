"""The retention of archives is a day, and that of operations 30 days; pending operations extend both."""

from datetime import UTC, datetime, timedelta

import pytest
from datasets_builders import Datasets
from vesta_common.errors import NotFound
from vesta_datasets.operations.retention import ARCHIVE_RETENTION, OPERATION_RETENTION, Retention


@pytest.fixture
def today(datasets: Datasets) -> Datasets:
    """The service, with a clock at the time of the object store."""
    datasets.advance(datetime.now(UTC) - datasets.store.clock.now())
    return datasets


def end_all(datasets: Datasets) -> None:
    with datasets.store.postgres.transaction() as connection:
        connection.execute("UPDATE operations SET done = true, response = ''")


def archives(datasets: Datasets) -> list[str]:
    return list(datasets.objects.list_keys("archives/"))


def test_archives_are_kept_for_a_day(today: Datasets) -> None:
    today.objects.put_named("archives/acme/a.zip", b"an archive")
    kept = today.objects.put("media", b"a picture").key
    retention = Retention(today.store, today.objects)
    today.advance(ARCHIVE_RETENTION - timedelta(hours=1))
    assert not retention.step()
    assert archives(today) == ["archives/acme/a.zip"]
    today.advance(timedelta(hours=2))
    assert not retention.step()
    assert archives(today) == []
    assert today.objects.exists(kept)


def test_an_archive_is_kept_while_an_operation_waits_for_it(today: Datasets) -> None:
    today.begin_import(today.a_dataset(), {"van/1.jpg": b"1"})
    today.advance(ARCHIVE_RETENTION * 3)
    Retention(today.store, today.objects).step()
    assert archives(today)
    end_all(today)
    Retention(today.store, today.objects).step()
    assert not archives(today)


def test_operations_are_kept_for_a_month_and_until_they_are_done(today: Datasets) -> None:
    operation = today.begin_import(today.a_dataset(), {"van/1.jpg": b"1"})
    today.advance(OPERATION_RETENTION + timedelta(hours=1))
    Retention(today.store, today.objects).step()
    assert not today.operation(operation).done
    end_all(today)
    Retention(today.store, today.objects).step()
    with pytest.raises(NotFound):
        today.operation(operation)
