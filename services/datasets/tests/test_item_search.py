"""A search with an index finds what an exact search finds, whatever has changed since the index was built."""

from typing import Any

import numpy as np
import pytest
from datasets_builders import DIMENSION, Datasets, a_medium
from vesta_contracts.datasets.v1 import DeleteDatasetRequest, SearchItemsRequest, Split
from vesta_datasets.ingest.search_indexing import SearchIndexer
from vesta_datasets.item_search import ItemSearch, SearchLimits
from vesta_datasets.items.filters import item_filter
from vesta_datasets.search.codes import Floats
from vesta_datasets.store.predictions import NearestQuery, ScoringModel

COUNT = 300
LIMIT = 10
SMALL_LIMITS = SearchLimits(candidates_min=100)
SPACE = "space"


class Embedded:
    """A dataset with embeddings, and its index."""

    def __init__(
        self, datasets: Datasets, dataset_id: str = "vans", indexed_min: int = 100, dimension: int = DIMENSION
    ) -> None:
        self.datasets = datasets
        self.store = datasets.store
        self.name = datasets.a_dataset(dataset_id)
        self.vectors: dict[str, Floats] = {}
        self.search = ItemSearch(self.store, SMALL_LIMITS)
        self.indexer = SearchIndexer(self.store, indexed_min)
        self._dimension = dimension
        self._seed = 0

    def add(self, count: int, **fields: Any) -> list[str]:
        """Adds items with embeddings, and returns their names."""
        self._seed += 1
        media = [a_medium(self._seed * 10_000 + number) for number in range(count)]
        names = [item.name for start in range(0, count, 256) for item in self._add(media[start : start + 256], fields)]
        vectors = np.random.default_rng(self._seed).normal(size=(count, self._dimension)).astype(np.float32)
        self.embed({name: vector / np.linalg.norm(vector) for name, vector in zip(names, vectors, strict=True)})
        return names

    def _add(self, media: list[Any], fields: dict[str, Any]) -> list[Any]:
        return self.datasets.add(self.name, *media, **fields)

    def embed(self, vectors: dict[str, Floats], space: str = SPACE) -> None:
        """Stores embeddings."""
        with self.store.postgres.transaction() as connection:
            model = ScoringModel("m", "d", 1)
            self.store.predictions.put_embeddings(connection, self.name, model, space, list(vectors.items()))
        self.vectors.update(vectors)

    def delete(self, names: list[str]) -> None:
        with self.store.postgres.transaction() as connection:
            for name in names:
                self.store.items.delete(connection, name)
                del self.vectors[name]

    def index(self) -> None:
        """Indexes all changes."""
        while self.indexer.step():
            pass

    def recall(self, text: str = "", allowed: list[str] | None = None, search: ItemSearch | None = None) -> float:
        """Returns the mean share of the nearest items, by an exact comparison here, that searches find."""
        names = list(self.vectors if allowed is None else allowed)
        matrix = np.stack([self.vectors[name] for name in names])
        shares = []
        for query in np.random.default_rng(99).normal(size=(8, self._dimension)).astype(np.float32):
            nearest = {names[place] for place in np.argsort(-(matrix @ query))[:LIMIT]}
            with self.store.postgres.point_in_time() as connection:
                given = NearestQuery(self.name, SPACE, query, item_filter(text), LIMIT)
                found = (search or self.search).nearest(connection, given).neighbours
            distances = [distance for _, distance in found]
            assert distances == sorted(distances)
            assert {item.name for item, _ in found} <= set(names)
            shares.append(len(nearest & {item.name for item, _ in found}) / len(nearest))
        return float(np.mean(shares))

    def rows(self, table: str) -> list[dict[str, Any]]:
        with self.store.postgres.transaction() as connection:
            return connection.execute(f"SELECT * FROM {table} WHERE dataset = %s", (self.name,)).fetchall()


@pytest.fixture
def embedded(datasets: Datasets) -> Embedded:
    """An indexed dataset."""
    dataset = Embedded(datasets)
    dataset.add(COUNT)
    dataset.index()
    assert sum(row["item_count"] for row in dataset.rows("search_segments")) == COUNT
    assert not dataset.rows("embedding_changes")
    return dataset


def test_a_dataset_with_an_index_is_searched(embedded: Embedded) -> None:
    assert embedded.recall() >= 0.95
    item = next(iter(embedded.vectors))
    found = embedded.datasets.items.SearchItems(SearchItemsRequest(parent=embedded.name, item=item)).neighbours
    assert found[0].item.name == item
    assert len(found) == 20


def test_the_index_chooses_what_is_compared(embedded: Embedded) -> None:
    """Without segments, only the items that the index does not have yet are found."""
    added = embedded.add(30)
    with embedded.store.postgres.transaction() as connection:
        connection.execute("DELETE FROM search_segments")
    assert embedded.recall(allowed=added) == 1.0


def test_new_embeddings_are_found_before_and_after_they_are_indexed(embedded: Embedded) -> None:
    embedded.add(30)
    assert embedded.recall() >= 0.95
    embedded.index()
    assert embedded.recall() >= 0.95
    assert len(embedded.rows("search_segments")) == 1


def test_items_are_found_after_most_others_are_deleted(embedded: Embedded) -> None:
    embedded.delete(list(embedded.vectors)[:240])
    assert embedded.recall() >= 0.95


def test_entries_of_deleted_and_replaced_embeddings_are_removed(embedded: Embedded) -> None:
    names = list(embedded.vectors)
    embedded.delete(names[200:])
    for _ in range(3):
        embedded.embed({name: -embedded.vectors[name] for name in names[:50]})
        embedded.indexer.step()
    assert sum(row["item_count"] for row in embedded.rows("search_segments")) == COUNT + 150
    embedded.index()
    assert sum(row["item_count"] for row in embedded.rows("search_segments")) == 200
    assert embedded.recall() >= 0.95


def test_an_item_with_another_embedding_is_found_by_the_new_one(embedded: Embedded) -> None:
    moved = list(embedded.vectors)[:100]
    embedded.embed({name: -embedded.vectors[name] for name in moved})
    embedded.index()
    assert embedded.recall() >= 0.95


def test_only_items_that_match_the_filter_are_found(embedded: Embedded) -> None:
    few = embedded.add(150, split=Split.SPLIT_TEST, metadata={"camera": "door"})
    embedded.index()
    assert embedded.recall("metadata.camera = door", few) >= 0.95
    for name in few[:20]:
        embedded.datasets.annotate(embedded.name, name, "van")
    assert embedded.recall('label = "van"', few[:20]) == 1.0
    nothing = embedded.datasets.items.SearchItems(
        SearchItemsRequest(parent=embedded.name, item=few[0], filter='label = "car"')
    )
    assert not nothing.neighbours


@pytest.mark.parametrize("count", [300, 600, 1200])
def test_more_candidates_are_compared_where_many_items_are_about_as_near(datasets: Datasets, count: int) -> None:
    dataset = Embedded(datasets, dimension=64)
    dataset.add(count - 60)
    few = dataset.add(60, metadata={"camera": "door"})
    dataset.index()
    limits = SearchLimits(candidates_min=LIMIT, candidates_per_neighbour=1, candidates_growth=32)
    for text, names in (("", None), ("metadata.camera = door", few)):
        assert dataset.recall(text, names, ItemSearch(dataset.store, limits)) >= 0.95
        without = limits._replace(candidates_growth=1)
        assert dataset.recall(text, names, ItemSearch(dataset.store, without)) < 0.95


@pytest.mark.parametrize("checked_counts", [(COUNT,), (5,)])
def test_a_filter_that_many_items_match_finds_the_same(embedded: Embedded, checked_counts: tuple[int, ...]) -> None:
    limits = SearchLimits(candidates_min=50, matches_max=60, checked_counts=checked_counts)
    many = embedded.add(200, metadata={"camera": "door"})
    embedded.index()
    assert embedded.recall("metadata.camera = door", many, ItemSearch(embedded.store, limits)) >= 0.95


def test_an_index_that_exceeds_the_cache_is_searched(embedded: Embedded) -> None:
    search = ItemSearch(embedded.store, SearchLimits(candidates_min=100, cache_bytes=0))
    assert embedded.recall(search=search) >= 0.95


def test_the_same_embeddings_again_change_nothing(embedded: Embedded) -> None:
    before = embedded.rows("search_segments")
    embedded.embed(embedded.vectors)
    assert not embedded.rows("embedding_changes")
    embedded.index()
    assert embedded.rows("search_segments") == before


def test_a_lost_index_is_built_again(embedded: Embedded) -> None:
    with embedded.store.postgres.transaction() as connection:
        connection.execute("DELETE FROM search_indexes")
    assert not embedded.rows("search_segments")
    embedded.index()
    assert sum(row["item_count"] for row in embedded.rows("search_segments")) == COUNT
    assert embedded.recall() >= 0.95


def test_a_small_dataset_has_no_index(datasets: Datasets) -> None:
    dataset = Embedded(datasets)
    dataset.add(99)
    dataset.index()
    assert not dataset.rows("search_indexes")
    assert not dataset.rows("embedding_changes")
    assert dataset.recall() == 1.0
    dataset.add(1)
    dataset.index()
    assert sum(row["item_count"] for row in dataset.rows("search_segments")) == 100


def test_the_index_of_a_deleted_dataset_is_deleted(embedded: Embedded) -> None:
    embedded.datasets.datasets.DeleteDataset(DeleteDatasetRequest(name=embedded.name))
    embedded.index()  # before its items are purged
    assert not embedded.rows("search_indexes")
    assert not embedded.rows("search_segments")


def test_one_replica_indexes_at_a_time(embedded: Embedded) -> None:
    embedded.add(10)
    with embedded.store.postgres.transaction() as connection:
        assert embedded.store.search_indexes.lock(connection)
        assert not embedded.indexer.step()
        assert embedded.rows("embedding_changes")
    assert embedded.indexer.step()
    assert not embedded.rows("embedding_changes")


def test_the_index_of_another_dataset_is_not_searched(embedded: Embedded) -> None:
    other = Embedded(embedded.datasets, "trucks")
    other.add(150)
    other.index()
    assert other.recall() >= 0.95
    assert embedded.recall() >= 0.95
