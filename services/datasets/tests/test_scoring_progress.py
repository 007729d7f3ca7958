"""The scoring progress is published at most once per interval, and always with the final counts."""

from datasets_builders import Datasets, a_medium
from vesta_contracts.datasets.v1 import DatasetScored
from vesta_datasets.ingest.scoring_progress import INTERVAL, ProgressPublisher


def scored_events(datasets: Datasets) -> list[DatasetScored]:
    with datasets.store.postgres.transaction() as connection:
        rows = connection.execute("SELECT topic, value FROM outbox ORDER BY id").fetchall()
    return [DatasetScored.FromString(bytes(row["value"])) for row in rows if row["topic"].endswith("dataset.v1")]


def test_many_predictions_are_counted_once_and_the_last_ones_always(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(6)))]
    publisher, other = ProgressPublisher(datasets.store), ProgressPublisher(datasets.store)
    for name in names[:3]:
        datasets.scored(dataset, [name])
    publisher.step()
    other.step()
    for name in names[3:]:
        datasets.scored(dataset, [name])
        publisher.step()
    assert [one.scored_count for one in scored_events(datasets)] == [3]
    datasets.advance(INTERVAL)
    publisher.step()
    other.step()
    datasets.advance(INTERVAL)
    publisher.step()
    assert [(one.scored_count, one.item_count) for one in scored_events(datasets)] == [(3, 6), (6, 6)]
    assert scored_events(datasets)[-1].model_version.endswith("/1")
