"""Recall and latency of searches for similar items in a dataset of a million items, also under a filter that keeps 1 % of them."""

import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import numpy as np
from figures import Figure
from scale_rows import CONCEPTS, LABELLED_EVERY, Integers, concept_of, name_of, number_of, similarities
from vesta_common.storage.postgres import Connection

NEIGHBOURS = 20
QUERIES = 40
WARM_UP = 5
RECALL_GOAL, LATENCY_GOAL_MS = 0.95, 30.0
INDEXING_SECONDS_MAX = 1_800
FILTERED_CONCEPTS = (3, 4)
FILTER = " OR ".join(f'label = "{CONCEPTS[number]}"' for number in FILTERED_CONCEPTS)


class Search(NamedTuple):
    """The result of a search: the numbers of the items that were found, and its latency."""

    numbers: list[int]
    latency_ms: float


def measure(client: httpx.Client, connection: Connection, dataset: str, count: int) -> Iterator[Figure]:
    """Yields `scale_search_recall`, `scale_search_p50_ms`, and both under a filter.

    The recall is the share of the nearest items, by an exact comparison with all embeddings, that a search returns.

    Args:
        count: the items of the dataset, all with embeddings.
    """
    items_per_second = _wait_for_index(connection, dataset, count)
    numbers = np.arange(count, dtype=np.int64)
    is_match = (numbers % LABELLED_EVERY == 0) & np.isin(concept_of(numbers), FILTERED_CONCEPTS)
    queries = [int(number) for number in np.random.default_rng(5).integers(0, count, WARM_UP + QUERIES)]
    for word, text, allowed in (("", "", numbers), ("_filtered", FILTER, numbers[is_match])):
        found = [_search(client, dataset, query, text) for query in queries]
        shares = [_recall(query, one.numbers, allowed) for query, one in zip(queries, found, strict=True)]
        latencies = [one.latency_ms for one in found[WARM_UP:]]
        details = {"min": min(shares), "matches": float(len(allowed)), "indexed_items_per_second": items_per_second}
        yield Figure(f"scale_search{word}_recall", statistics.mean(shares), RECALL_GOAL, lower=False, details=details)
        p50_ms = statistics.median(latencies)
        details = {"p90_ms": statistics.quantiles(latencies, n=10)[8], "first_ms": found[0].latency_ms}
        yield Figure(f"scale_search{word}_p50_ms", p50_ms, LATENCY_GOAL_MS, lower=True, details=details)


def _wait_for_index(connection: Connection, dataset: str, count: int) -> float:
    """Waits until the index has all embeddings. Returns the items per second that were added meanwhile."""
    began = time.monotonic()
    first = indexed = _indexed_count(connection, dataset)
    while indexed < count:
        if time.monotonic() > began + INDEXING_SECONDS_MAX:
            raise TimeoutError(f"the search index has {indexed} of {count} embeddings; see the log of datasets")
        time.sleep(1)
        indexed = _indexed_count(connection, dataset)
    return (indexed - first) / (time.monotonic() - began)


def _indexed_count(connection: Connection, dataset: str) -> int:
    statement = "SELECT coalesce(sum(item_count), 0) AS count FROM search_segments WHERE dataset = %s"
    row = connection.execute(statement, (dataset,)).fetchone()
    connection.commit()
    assert row is not None
    return int(row["count"])


def _search(client: httpx.Client, dataset: str, number: int, text: str) -> Search:
    body = {"item": name_of(dataset, number), "filter": text, "neighboursMax": NEIGHBOURS}
    began = time.perf_counter()
    response = client.post(f"/v1/{dataset}/items:search", json=body)
    latency_ms = (time.perf_counter() - began) * 1000
    neighbours = response.raise_for_status().json()["neighbours"]
    return Search([number_of(neighbour["item"]["name"]) for neighbour in neighbours], latency_ms)


def _recall(query: int, found: list[int], allowed: Integers) -> float:
    """Returns which share of the nearest allowed items was found, without the query itself."""
    others = allowed[allowed != query]
    nearest = others[np.argpartition(-similarities(query, others), NEIGHBOURS - 1)[: NEIGHBOURS - 1]]
    return len(set(nearest.tolist()) & set(found)) / len(nearest)
