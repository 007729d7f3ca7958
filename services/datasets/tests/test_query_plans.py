"""A small dataset costs what it would cost alone: no statement scans the items of another dataset."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from pgvector.psycopg import register_vector
from vesta_common.storage.postgres import Connection, Postgres
from vesta_datasets.items.filters import item_filter
from vesta_datasets.store.item_lists import ListPosition, ids_statement, matching_statement, statement_of
from vesta_datasets.store.predictions import NearestQuery, nearest_statement
from vesta_datasets.store.statements import queries
from vesta_local.query_plans import ROWS_MAX, excesses, named_statements, set_row_count
from vesta_local.testing import new_schema

LARGE, SMALL = "projects/large/datasets/d", "projects/small/datasets/d"
LARGE_COUNT, SMALL_COUNT = 20_000, 20
TABLES = (
    "items",
    "embeddings",
    "item_terms",
    "item_bands",
)  # the tables of the search index have one row for thousands of items
ITEM = f"{SMALL}/items/00003"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FILL = """
INSERT INTO items (name, dataset, sha256, media, file_name, source, metadata, split, group_name, duplicate_of, straddles, perceptual_hash,
    bands, accepted, labels, scores, scored_by, predicted_labels, uncertain, create_time, update_time, object_count,
    duplicate_object_count, object_area_min, object_area_max, predicted_count, predicted_area_min, predicted_area_max, predicted_figures)
SELECT %(dataset)s || '/items/' || lpad(n::text, 5, '0'), %(dataset)s, md5(%(dataset)s || n), '\\x', n || '.jpg',
    'projects/p/sources/s', '{}',
    (ARRAY['TRAIN', 'TRAIN', 'VALIDATION', 'TEST'])[n %% 4 + 1], %(dataset)s || '/items/' || lpad(n::text, 5, '0'), '', false, n,
    ARRAY[n %% 300, 65536, 131072, 196608], CASE WHEN n %% 3 = 0 THEN '\\x'::bytea END,
    CASE WHEN n %% 3 = 0 THEN ARRAY['van'] ELSE '{}' END, '\\x', 'v1', ARRAY['car'], n %% 5 = 0, %(now)s + n * interval '1 s', %(now)s,
    n %% 50, n %% 1000 / 999, n %% 100, n, n %% 50, n %% 100, n, jsonb_build_object('car', jsonb_build_array(n %% 20, n %% 100, n))
FROM generate_series(1, %(count)s) AS n;
"""
FILL_EMBEDDINGS = """
INSERT INTO embeddings (item, dataset, space, embedding) SELECT name, dataset, 'space', '[1,0]' FROM items WHERE dataset = %(dataset)s
"""
FILL_INDEX = """
INSERT INTO search_indexes (dataset, space) VALUES (%(dataset)s, 'space');
INSERT INTO search_segments (dataset, space, item_count, item_ids, thresholds, codes)
SELECT %(dataset)s, 'space', 1, '\\x', '\\x', '\\x' FROM generate_series(1, %(count)s / 100);
INSERT INTO embedding_changes (dataset, space, items)
SELECT %(dataset)s, 'space', ARRAY[%(dataset)s || '/items/1'] FROM generate_series(1, %(count)s / 100);
"""
VALUES: dict[str, Any] = {
    "name": ITEM, "names": [ITEM], "item": ITEM, "items": [ITEM], "dataset": SMALL, "datasets": [SMALL], "hashes": ["x"],
    "parent": "projects/small", "after": "", "limit": 51, "now": NOW, "body": b"", "taxonomy": "projects/small/taxonomies/t",
    "changes_min": 100, "scored_by": "v2", "deployment": "d", "generation": 1, "published_before": NOW, "prediction_count": 1,
    "probes": [65_536, 131_072], "metadata": "{}", "accepted": [b""], "labels": ['["van"]'], "shape_concepts": ["[]"], "reviewed": [True],
    "control": [False],
    "scores": [b""], "predicted": ['["van"]'], "top_scores": [0.5], "margins": [0.5], "uncertain": [True], "embeddings": ["[1,0]"],
    "space": "space", "excluded": [], "seed": 1, "held_max": 10, "free_max": 10, "before_time": NOW, "before_name": "",
    "kind": "import", "request": b"", "caller": "", "done_count": 1, "total_count": 1, "response": b"", "last_error": "",
    "error": "", "error_code": "", "before": NOW, "seen_version": 0, "manifest_key": "manifests/x", "last_items": [ITEM],
    "visible": "1:1:", "changes_max": 100, "delete_time": NOW, "facets_mask": 39, "facets": 2,
    "last_item": ITEM,
    "key": 1, "count_min": 1, "numbers": [1], "number": 1, "pending_max": 100, "margin": 0, "item_count": 1, "item_ids": b"",
    "thresholds": b"", "codes": b"",
    "answers": [0],
    "object_counts": [1], "duplicate_counts": [0], "area_mins": [4.0], "area_maxs": [9.0],
    "figures": [None],
}  # fmt: skip
NEW = {"insert_taxonomy": "projects/small/taxonomies/new", "insert_dataset": "projects/small/datasets/new"}
FILTERS = (
    "",
    "split = TEST AND NOT labelled",
    "uncertain",
    "labelled",
    'label = "van"',
    'label = "none"',
    'label = "van" AND predicted : "car" AND split = TRAIN',
    'label = "van" OR concept = "car"',
    'predicted : "car"',
    'source = "projects/p/sources/s"',
    'create_time >= "2026-01-01T00:00:10Z"',
    'create_time >= "2026-01-01T00:00:10Z" AND label = "van"',
    'file_name = "3.jpg"',
    'sha256 = "x"',
    'metadata.line = "7"',
    'score > 0.5 AND NOT label = "van"',
    "object_count >= 3 AND score > 0.5",
    'duplicate_object_count > 0 AND label = "van"',
    "duplicate_object_count > 0",
    "object_count >= 48",
    "predicted_count >= 20 AND predicted_count < 24 AND split = TRAIN",
    "predicted_area_max >= 16384",
    "predicted_area_max >= 19000",
    "predicted_area_min < 2 AND NOT labelled",
    "predicted_count.car = 15",
    "predicted_count.none >= 1",
    "predicted_area_max.car > 19000 AND uncertain",
)
FULL_COUNT = (
    "SELECT count(*) FROM items JOIN datasets ON datasets.name = items.dataset WHERE datasets.name = ANY(%(datasets)s)"
)


@pytest.fixture(scope="module")
def connection(postgres_url: str) -> Iterator[Connection]:
    """The tables of the service with a small dataset beside a large one, of which the planner believes that it has a million items."""
    with new_schema(postgres_url) as schema:
        postgres = Postgres(postgres_url, schema)
        postgres.migrate("vesta_datasets")
        with postgres.connect() as connection:
            for dataset, count in ((LARGE, LARGE_COUNT), (SMALL, SMALL_COUNT)):
                project = dataset.partition("/datasets/")[0]
                given = {
                    **VALUES,
                    "name": f"{project}/taxonomies/t",
                    "parent": project,
                    "taxonomy": f"{project}/taxonomies/t",
                }
                queries.insert_taxonomy(connection, **given)
                queries.insert_dataset(connection, **{**given, "name": dataset})
                connection.execute(FILL, {"dataset": dataset, "count": count, "now": NOW})
                connection.execute(FILL_EMBEDDINGS, {"dataset": dataset})
                connection.execute("DELETE FROM embedding_changes WHERE dataset = %(dataset)s", {"dataset": dataset})
                for statement in FILL_INDEX.split(";\n")[:3]:
                    connection.execute(statement, {"dataset": dataset, "count": count})
            connection.commit()
            set_row_count(connection, TABLES)
            register_vector(connection)
            yield connection


@pytest.mark.own_engines
def test_no_statement_scans_another_dataset(connection: Connection) -> None:
    statements = named_statements(queries)
    new = {name: statements.pop(name) for name in NEW}
    assert excesses(connection, statements, VALUES, TABLES) == []
    for name, statement in new.items():
        assert excesses(connection, {name: statement}, {**VALUES, "name": NEW[name]}, TABLES) == []


@pytest.mark.own_engines
@pytest.mark.parametrize("text", FILTERS)
@pytest.mark.parametrize("dataset", [SMALL, LARGE])
def test_a_page_of_a_filtered_list_reads_little(connection: Connection, text: str, dataset: str) -> None:
    if dataset == LARGE and any(field in text for field in ("score", "metadata", "duplicate_object_count", "19000")):
        return  # these conditions are checked for each item, or for each of the first and the last range
    statement, values = statement_of(dataset, item_filter(text), ListPosition(NOW, ""), 51)
    rows_max = LARGE_COUNT // 2 if " AND predicted" in text else ROWS_MAX  # two lists are merged
    assert excesses(connection, {text: statement}, values, TABLES, rows_max) == []


@pytest.mark.own_engines
@pytest.mark.parametrize("text", FILTERS)
def test_a_search_reads_little(connection: Connection, text: str) -> None:
    """In a small dataset, and among few candidates of a large one."""
    where = item_filter(text)
    query = NearestQuery(SMALL, "space", np.array([1, 0], np.float32), where, 20)
    statements = {
        "exact": nearest_statement(query, None),
        "candidates": nearest_statement(query, [ITEM]),
        "ids": ids_statement(SMALL, where, 20_001),
        "matching": matching_statement([ITEM], where, 256),
    }
    for name, (statement, values) in statements.items():
        assert excesses(connection, {name: statement}, values, TABLES) == []
    large = NearestQuery(LARGE, "space", query.vector, where, 20)
    names = [f"{LARGE}/items/{number:05}" for number in range(100)]
    statement, values = nearest_statement(large, names)
    assert excesses(connection, {"candidates": statement}, values, TABLES) == []


@pytest.mark.own_engines
def test_a_statement_that_scans_another_dataset_is_found(connection: Connection) -> None:
    assert excesses(connection, {"broken": FULL_COUNT}, VALUES, TABLES)
    assert excesses(connection, {"broken": "SELECT FROM items WHERE dataset LIKE %(dataset)s || '%%'"}, VALUES, TABLES)
    assert not excesses(connection, {"good": "SELECT FROM items WHERE dataset = %(dataset)s"}, VALUES, TABLES)
