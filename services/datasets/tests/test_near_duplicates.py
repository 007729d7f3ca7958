"""Near-duplicates are found without a lock on the dataset, and what changes meanwhile is taken into account."""

from datasets_builders import Datasets, a_medium
from vesta_common.storage.postgres import Postgres, migrations_of
from vesta_contracts.datasets.v1 import BatchCreateItemsRequest, DeleteItemRequest, NewItem
from vesta_datasets.ingest.near_duplicates import NearDuplicates
from vesta_datasets.items.splits import Placement, Split

HASH = 0x0123456789ABCDEF


def added(datasets: Datasets, dataset: str, seed: int, perceptual_hash: int) -> str:
    """Adds an item, and returns its name."""
    request = BatchCreateItemsRequest(parent=dataset, items=[NewItem(media=a_medium(seed, perceptual_hash))])
    return str(datasets.items.BatchCreateItems(request).items[0].name)


def test_a_near_duplicate_that_is_added_during_the_search_is_found(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    before = added(datasets, dataset, 1, HASH ^ 0b111)
    new = a_medium(3, HASH)
    with datasets.store.postgres.transaction() as connection:
        duplicates = NearDuplicates(datasets.store, connection, dataset, [new])
        meanwhile = added(datasets, dataset, 2, HASH ^ 0b1)  # would wait for a lock on the dataset
        datasets.store.datasets.get(connection, dataset, lock=True)
        duplicates.update(connection, [new])
        assert [item.name for item in duplicates.of(new)] == [meanwhile, before]
        assert {item.group for item in duplicates.of(new)} == {before}


def test_a_near_duplicate_that_is_deleted_during_the_search_is_not_found(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    before = added(datasets, dataset, 1, HASH ^ 0b111)
    new = a_medium(3, HASH)
    with datasets.store.postgres.transaction() as connection:
        duplicates = NearDuplicates(datasets.store, connection, dataset, [new])
        datasets.items.DeleteItem(DeleteItemRequest(name=before))
        duplicates.update(connection, [new])
        assert duplicates.of(new) == []


def test_an_image_that_the_dataset_had_only_during_the_search_is_searched_again(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    other = added(datasets, dataset, 1, HASH ^ 0b111)
    same = added(datasets, dataset, 3, HASH)
    new = a_medium(3, HASH)
    with datasets.store.postgres.transaction() as connection:
        duplicates = NearDuplicates(datasets.store, connection, dataset, [new])
        datasets.items.DeleteItem(DeleteItemRequest(name=same))
        duplicates.update(connection, [new])
        assert [item.name for item in duplicates.of(new)] == [other]


def test_items_of_one_batch_are_near_duplicates_of_each_other(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    one, other = a_medium(1, HASH), a_medium(2, HASH ^ 0b1)
    with datasets.store.postgres.transaction() as connection:
        duplicates = NearDuplicates(datasets.store, connection, dataset, [one, other])
        duplicates.update(connection, [one, other])
        assert duplicates.of(one) == []
        duplicates.add("first", one, Placement(Split.TEST, "first"))
        assert [(item.name, item.split) for item in duplicates.of(other)] == [("first", Split.TEST)]


def test_the_bands_of_deleted_items_are_deleted(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    name = added(datasets, dataset, 1, HASH)
    with datasets.store.postgres.transaction() as connection:
        assert connection.execute("SELECT item FROM item_bands").fetchall() == [{"item": name}]
    datasets.items.DeleteItem(DeleteItemRequest(name=name))
    with datasets.store.postgres.transaction() as connection:
        assert connection.execute("SELECT item FROM item_bands").fetchall() == []


def test_items_from_before_and_during_the_update_have_bands(postgres_url: str, postgres_schema: str) -> None:
    postgres = Postgres(postgres_url, postgres_schema).open()
    with postgres.connect() as connection:
        connection.execute(f"CREATE SCHEMA {postgres_schema}".encode())
        for name, statements in migrations_of("vesta_datasets"):
            if name == "0027_cheaper_updates.sql":
                connection.execute(_INSERT, {"name": "before"})
            connection.execute(statements.encode())
            if name == "0027_cheaper_updates.sql":
                connection.execute(_INSERT, {"name": "during"})  # by a replica of the previous version
        added = connection.execute("SELECT item, dataset, bands FROM item_bands ORDER BY number").fetchall()
    postgres.close()
    assert added == [{"item": name, "dataset": "d", "bands": [7]} for name in ("before", "during")]


_INSERT = """
INSERT INTO items (name, dataset, sha256, media, file_name, source, metadata, split, group_name, duplicate_of, straddles,
    perceptual_hash, bands, create_time, update_time)
VALUES (%(name)s, 'd', %(name)s, '', '', '', '{}', 'TRAIN', %(name)s, '', false, 7, '{7}', now(), now())
"""
