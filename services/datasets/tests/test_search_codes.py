"""The nearest codes belong to the nearest embeddings, however the embeddings lie and the segments came about."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vesta_datasets.search.codes import CODE_BITS, Floats, encode, project, project_query, similarities
from vesta_datasets.search.loaded_index import LoadedIndex, refreshed
from vesta_datasets.search.segments import (
    SEGMENT_ITEMS_MAX,
    Segment,
    appended,
    hashes_of,
    ids_of,
    packed,
    unpacked,
)

RNG = np.random.default_rng(11)
DIMENSION, COUNT, CLUSTERS = 256, 12_000, 300
NEIGHBOURS, CANDIDATES, QUERIES = 20, 256, 25
RECALL_MIN = 0.95


def unit(vectors: Floats) -> Floats:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(count: int) -> Floats:
    """Embeddings in clusters, whose variance decreases from one dimension to the next."""
    scale = np.arange(1, DIMENSION + 1) ** -0.5
    centres = np.random.default_rng(1).normal(size=(CLUSTERS, DIMENSION)) * scale
    return unit(centres[RNG.integers(0, CLUSTERS, count)] + 0.5 * RNG.normal(size=(count, DIMENSION)) * scale)


def of_one_scene(count: int) -> Floats:
    """Embeddings that are all near each other, as those of the frames of one camera are: mean cosine 0.97."""
    return unit(np.ones(DIMENSION) / DIMENSION**0.5 + 0.15 * clustered(count))


def an_index(embeddings: Floats, step: int = 3_000) -> LoadedIndex:
    """Returns the index of items `0`, `1` … that were added in batches."""
    segments: list[Segment] = []
    for start in range(0, len(embeddings), step):
        part = embeddings[start : start + step]
        ids = ids_of([str(start + index).encode() for index in range(len(part))])
        last = segments[-1] if segments else None
        if last is not None and len(last.ids) < SEGMENT_ITEMS_MAX:
            segments.pop()
        segments += appended(last, ids, part)
    return refreshed(LoadedIndex(), range(len(segments)), segments.__getitem__)


@pytest.mark.parametrize("draw", [clustered, of_one_scene])
@pytest.mark.parametrize("share", [1, 0.01])
def test_the_candidates_contain_the_nearest_items(draw: Callable[[int], Floats], share: float) -> None:
    embeddings, queries = draw(COUNT), draw(QUERIES)
    index = an_index(embeddings)
    allowed = np.flatnonzero(RNG.random(COUNT) <= share)
    among = None if share == 1 else ids_of([str(place).encode() for place in allowed])
    found = []
    for query in queries:
        nearest = allowed[np.argsort(-(embeddings[allowed] @ query))[:NEIGHBOURS]]
        candidates = index.nearest(project(query[None])[0], min(CANDIDATES, len(allowed) // 2), among)
        assert {int(one) for one in candidates} <= set(allowed)
        found.append(len({str(place).encode() for place in nearest} & set(candidates)) / NEIGHBOURS)
    assert np.mean(found) >= RECALL_MIN


def test_a_similarity_adds_weights_with_the_signs_of_the_bits() -> None:
    signs = RNG.choice([-1, 1], (3, CODE_BITS)).astype(np.float32)
    weights = RNG.normal(size=CODE_BITS).astype(np.float32)
    codes = encode(signs, np.zeros(CODE_BITS, np.float32))
    assert np.allclose(similarities(codes, weights), signs @ weights, atol=1e-3)
    assert similarities(codes[:, :0], weights).shape == (0,)


def test_the_projection_of_a_query_is_that_of_an_embedding() -> None:
    (embedding,) = clustered(1)
    assert np.allclose(project_query(embedding), project(embedding[None])[0], atol=1e-4)


def test_segments_are_full_except_the_last() -> None:
    index = an_index(clustered(2 * SEGMENT_ITEMS_MAX + 100), step=700)
    assert [len(segment.ids) for segment in index.segments] == [SEGMENT_ITEMS_MAX, SEGMENT_ITEMS_MAX, 100]
    assert [int(one) for segment in index.segments for one in segment.ids] == list(range(2 * SEGMENT_ITEMS_MAX + 100))


def test_a_stored_segment_is_read_as_it_was() -> None:
    (segment,) = an_index(clustered(100)).segments
    again = unpacked(**packed(segment))
    assert again.ids.tolist() == segment.ids.tolist()
    assert np.array_equal(again.thresholds, segment.thresholds)
    assert np.array_equal(again.codes, segment.codes)


def test_only_new_segments_are_read() -> None:
    embeddings = clustered(2 * SEGMENT_ITEMS_MAX)
    first, second = an_index(embeddings).segments
    stored = {1: first, 2: second}
    read: list[int] = []

    def reading(number: int) -> Segment:
        read.append(number)
        return stored[number]

    index = refreshed(LoadedIndex(), [1], reading)
    index = refreshed(index, [1, 2], reading)
    assert refreshed(index, [1, 2], reading) is index
    assert read == [1, 2]


def test_a_large_index_finds_the_same_items_with_less_memory(tmp_path: Path) -> None:
    embeddings = clustered(2 * SEGMENT_ITEMS_MAX + 500)
    among = ids_of([str(place).encode() for place in range(0, len(embeddings), 37)] + [b"missing"])
    query = project(embeddings[:1])[0]
    unsorted = an_index(embeddings)
    segments = unsorted.segments
    large = refreshed(LoadedIndex(), range(len(segments)), segments.__getitem__, tmp_path / "work", unsorted_max=1_000)
    assert len(large.table.hashes) == 2 * SEGMENT_ITEMS_MAX
    assert not len(unsorted.table.hashes)
    assert large.size_bytes < 0.6 * unsorted.size_bytes
    for given_ids in (None, among):
        assert large.nearest(query, 100, given_ids) == unsorted.nearest(query, 100, given_ids)
    assert set(large.nearest(query, 10_000, among)) == set(unsorted.nearest(query, 10_000, among))
    assert len(large.nearest(query, 10_000, among)) == len(among) - 1
    assert not list((tmp_path / "work").iterdir())


def test_segments_in_a_file_stay_there_when_others_are_replaced(tmp_path: Path) -> None:
    embeddings = clustered(3 * SEGMENT_ITEMS_MAX)
    stored = dict(enumerate(an_index(embeddings).segments))
    first = refreshed(LoadedIndex(), [0, 1], stored.__getitem__, tmp_path, unsorted_max=1_000)
    later = refreshed(first, [0, 1, 2], stored.__getitem__, tmp_path, unsorted_max=1_000)
    mappings = [segment.mapping for segment in later.segments]
    assert mappings[0] is first.segments[0].mapping is not None
    assert mappings[1] not in (None, mappings[0])
    assert mappings[2] is None
    query = project(embeddings[:1])[0]
    assert later.nearest(query, 100) == an_index(embeddings).nearest(query, 100)


def test_an_index_is_in_memory_if_no_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    segments = an_index(clustered(2 * SEGMENT_ITEMS_MAX + 1)).segments
    index = refreshed(LoadedIndex(), range(3), segments.__getitem__, tmp_path / "file", unsorted_max=1_000)
    assert [segment.mapping for segment in index.segments] == [None] * 3


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda one: b"\0" not in one), min_size=1, unique=True))
def test_the_hash_of_an_id_depends_on_nothing_else(ids: list[bytes]) -> None:
    together = hashes_of(ids_of(ids))
    assert len(set(together.tolist())) == len(ids)
    assert [int(hashes_of(ids_of([one]))[0]) for one in ids] == together.tolist()


def test_an_empty_index_finds_nothing() -> None:
    query = project(clustered(1))[0]
    assert LoadedIndex().nearest(query, 10) == []
    assert LoadedIndex().nearest(query, 10, ids_of([b"1"])) == []
