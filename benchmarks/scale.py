"""Latency of reads of a dataset of a million items, and of a small dataset of another project beside it."""

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
import scale_export
import scale_reconcile
import scale_search
import scale_snapshots
from figures import Figure
from psycopg import sql
from scale_rows import CONCEPTS, file_name_of, insert_items, name_of, source_of
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_common.storage.postgres import Connection, Postgres, address_of
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.datasets.v1 import Concept, CreateDatasetRequest, CreateTaxonomyRequest, Dataset, Taxonomy
from vesta_local.engines.addresses import admin_settings
from vesta_local.platform import Platform
from vesta_local.testing import running_platform

SMALL, MANY, MILLION = 20, 100_000, 1_000_000
CALLS = 60
WARM_UP = 5
SECONDS_MAX = 10.0  # for the calls of a resource
DEEP_PAGES = 20
PAGE_SIZE = 50
PAGE_GOAL_MS, COUNTS_GOAL_MS = 50, 20
ISOLATION_GOAL = 1.5

Request = tuple[str, dict[str, str | int]]
"""The path of a REST resource and the query parameters, or of a search and its fields."""


def measure(port_block: int) -> Iterator[Figure]:
    """Yields `scale_page_…_p99_ms` for each filter, those of other calls, `scale_tenant_isolation_ratio`, `scale_reconcile_ms`
    and the figures of `scale_search`, `scale_snapshots` and `scale_export`.

    The rows are inserted into the tables of the datasets service; all reads go through the REST API. Latencies at 100,000 items
    are among the details.
    """
    with running_platform(block=port_block) as platform, _client(platform) as client, tables_of(platform) as connection:
        small, large = (new_dataset(platform, word) for word in ("small", "large"))
        _grow(connection, small, 0, SMALL)
        alone = _compared(client, small)
        calls = _calls(large)
        _grow(connection, large, 0, MANY)
        at_many = {name: _latencies_ms(client, call) for name, call in calls.items()}
        _grow(connection, large, MANY, MILLION)
        for name, call in calls.items():
            found = _latencies_ms(client, call)
            goal = COUNTS_GOAL_MS if name in ("get_dataset", "list_datasets") else PAGE_GOAL_MS
            yield _p99_figure(name, at_many[name], found, goal)
        yield _deep_page_figure(client, large)
        yield _isolation_figure(alone, _compared(client, small))
        yield from scale_search.measure(client, connection, large, MILLION)
        yield scale_reconcile.measure(platform, large)
        yield from scale_snapshots.measure(platform, client, connection, large)
        yield from scale_export.measure(platform.home)


def _calls(dataset: str) -> dict[str, Request]:
    """Returns the calls of the studio, by the name of their figure."""
    recent = '"2026-01-08T00:00:00Z"'  # the last 395,000 of a million items
    filters = {
        "first_page": "",
        "split_not_labelled": "split = TEST AND NOT labelled",
        "label": f'label = "{CONCEPTS[3]}"',
        "predicted": f'predicted : "{CONCEPTS[3]}"',
        "uncertain": "uncertain AND NOT labelled",
        "source": f'source = "{source_of(dataset, 30_000)}"',
        "time": f"create_time >= {recent}",
        "file_name": f'file_name = "{file_name_of(MANY - 1)}"',
        "confusion": f'label = "{CONCEPTS[3]}" AND predicted : "{CONCEPTS[4]}"',
        "nothing": 'label = "none"',
        "nothing_of_split": "split = TEST AND duplicate",
        "everything": "NOT duplicate",
    }
    pages: dict[str, Request] = {
        f"page_{name}": (f"{dataset}/items", {"page_size": PAGE_SIZE, "filter": text}) for name, text in filters.items()
    }
    return {**pages, "get_dataset": (dataset, {}), "list_datasets": (dataset.rpartition("/")[0], {})}


def _latencies_ms(client: httpx.Client, call: Request) -> list[float]:
    """Calls a resource repeatedly; a slow one less often. The first calls are not measured."""
    found: list[float] = []
    end = time.perf_counter() + SECONDS_MAX
    for number in range(WARM_UP + CALLS):
        latency_ms = _latency_ms(client, call)
        is_late = time.perf_counter() > end
        if number >= WARM_UP or is_late:
            found.append(latency_ms)
        if is_late and len(found) > 1:
            break
    return found


def _compared(client: httpx.Client, dataset: str) -> dict[str, float]:
    """Returns the time of each call for a dataset, as a multiple of the time of a call that reads no items, made alternately."""
    control: Request = (dataset.partition("/datasets/")[0], {})
    found = {}
    search: Request = (f"{dataset}/items:search", {"item": name_of(dataset, SMALL // 2)})
    for name, call in {**_calls(dataset), "search": search}.items():
        pairs = [(_latency_ms(client, call), _latency_ms(client, control)) for _ in range(WARM_UP + CALLS)][WARM_UP:]
        found[name] = statistics.median(one for one, _ in pairs) / statistics.median(other for _, other in pairs)
    return found


def _latency_ms(client: httpx.Client, call: Request) -> float:
    path, parameters = call
    began = time.perf_counter()
    if path.endswith(":search"):
        client.post(f"/v1/{path}", json=parameters).raise_for_status()
    else:
        client.get(f"/v1/{path}", params=parameters).raise_for_status()
    return (time.perf_counter() - began) * 1000


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def _p99_figure(name: str, at_many: list[float], found: list[float], goal: float) -> Figure:
    details = {
        "p50_ms": statistics.median(found),
        f"p50_ms_at_{MANY}": statistics.median(at_many),
        f"p99_ms_at_{MANY}": _p99(at_many),
    }
    return Figure(f"scale_{name}_p99_ms", _p99(found), goal, lower=True, details=details)


def _deep_page_figure(client: httpx.Client, dataset: str) -> Figure:
    """Reads pages one after another, of 1,000 items, so that the last ones lie deep, and then pages of 50."""
    parameters: dict[str, str | int] = {"page_size": 1000, "filter": "NOT labelled"}
    for _ in range(DEEP_PAGES):
        answer = client.get(f"/v1/{dataset}/items", params=parameters).raise_for_status().json()
        parameters["page_token"] = answer["nextPageToken"]
    found = _latencies_ms(client, (f"{dataset}/items", {**parameters, "page_size": PAGE_SIZE}))
    return Figure("scale_deep_page_p99_ms", _p99(found), PAGE_GOAL_MS, lower=True)


def _isolation_figure(alone: Mapping[str, float], beside: Mapping[str, float]) -> Figure:
    ratios = {name: beside[name] / alone[name] for name in alone}
    return Figure(
        "scale_tenant_isolation_ratio",
        max(ratios.values()),
        ISOLATION_GOAL,
        lower=True,
        baseline=f"the median of the same call for {SMALL} items on an empty platform, both as multiples of GetProject at that time; "
        "the largest ratio of all calls",
        details=ratios,
    )


def _grow(connection: Connection, dataset: str, first: int, end: int) -> None:
    """Inserts items, and updates the statistics as autovacuum would."""
    version = f"{dataset.rpartition('/datasets/')[0]}/models/scale/versions/1"
    connection.execute("UPDATE datasets SET scored_by = %s WHERE name = %s", (version, dataset))
    insert_items(connection, dataset, first, end, version)
    connection.autocommit = True
    for table in ("items", "embeddings"):
        connection.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))
    connection.autocommit = False


def new_dataset(platform: Platform, word: str) -> str:
    """Creates a project with a dataset, and returns the name of the dataset."""
    with Vesta(platform.home.address("gateway_grpc"), platform.home.owner_key) as owner:
        project = owner.projects.CreateProject(
            CreateProjectRequest(project_id=f"{word}-{new_id()}", project=Project(display_name=word))
        ).name
        concepts = Taxonomy(concepts=[Concept(id=concept) for concept in CONCEPTS])
        taxonomy = owner.taxonomies.CreateTaxonomy(CreateTaxonomyRequest(parent=project, taxonomy=concepts)).name
        request = CreateDatasetRequest(parent=project, dataset=Dataset(taxonomy=taxonomy))
        return str(owner.datasets.CreateDataset(request).name)


@contextmanager
def _client(platform: Platform) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {platform.home.owner_key}"}
    with httpx.Client(base_url=f"http://{platform.home.address('gateway')}", headers=headers, timeout=120) as client:
        yield client


@contextmanager
def tables_of(platform: Platform) -> Iterator[Connection]:
    """A connection to the tables of the datasets service, without a statement timeout."""
    settings = admin_settings(platform.home)
    with Postgres(address_of(settings), "datasets").connect() as connection:
        connection.execute("SET statement_timeout = 0")
        connection.commit()
        yield connection
