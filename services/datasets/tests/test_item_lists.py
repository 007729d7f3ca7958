"""Lists find by indexes what a scan finds, in the same order, for every filter and after any sequence of changes."""

import base64
import json

import pytest
from datasets_builders import PROJECT, Datasets, a_medium, refusal
from random_changes import RandomChanges
from vesta_common.errors import InvalidArgument
from vesta_contracts.datasets.v1 import DeleteItemRequest, ItemView, ListItemsRequest
from vesta_datasets.items.facets import BITS, SPLITS
from vesta_datasets.items.figure_terms import BOUNDS
from vesta_datasets.items.filters import item_filter

FILTERS = (
    "",
    "split = TEST AND NOT labelled",
    "split != TRAIN",
    "NOT (split = TEST OR labelled)",
    "uncertain AND scored",
    "duplicate OR control",
    "annotated = false",
    "reviewed",
    'label = "van"',
    'label = "van" OR label = "car"',
    'concept = "car" AND split = TRAIN',
    'label = "van" AND predicted : "van"',
    'predicted : "van" AND NOT label = "van"',
    'predicted = "none"',
    'predicted : "van" AND label != "van" AND NOT concept = "car"',
    'NOT label = "van" AND NOT (label = "car" OR predicted : "van")',
    'predicted : "van" AND source != "x"',
    'source = ""',
    'source != "" AND predicted : "van"',
    'predicted : "van" AND create_time >= "2026-01-01T00:00:00Z" AND create_time > "2025-01-01T00:00:00Z"',
    f'source = "{PROJECT}/sources/a"',
    f'source = "{PROJECT}/sources/a" AND predicted : "van" AND label = "car"',
    'create_time >= "2026-01-01T00:00:00Z"',
    'create_time < "2026-01-01T00:00:00Z"',
    'create_time > "2026-01-01T00:00:00Z" AND label = "van"',
    'update_time >= "2026-01-01T00:00:00Z" AND labelled',
    'file_name = "1.jpg"',
    'file_name >= "1" AND file_name < "2" AND NOT labelled',
    "score > 0.5 OR split = TEST",
    'metadata.line = "7"',
    "object_count >= 1 AND NOT object_area_min < 2",
    'predicted_count = 0 AND predicted : "van"',
    "duplicate_object_count > 0 OR predicted_area_max > 3",
    "object_count > 1 AND object_count <= 3 AND object_area_max > 9",
    "object_count = 2",
    "object_count != 2",
    "object_count < 2 AND labelled",
    "object_area_min <= 4 AND object_area_max >= 9",
    "object_area_max = 9",
    "predicted_count >= 2 AND uncertain",
    "predicted_count >= 0",
    'predicted_count.van >= 1 AND NOT label = "car"',
    "predicted_count.van < 1 AND scored",
    "predicted_area_max.van <= 4",
    "object_count > 5 AND object_count < 3",
)


def scanned(datasets: Datasets, dataset: str, text: str) -> list[str]:
    """Returns the names of the matching items, from the condition alone."""
    where = item_filter(text)
    statement = f"SELECT name FROM items WHERE dataset = %(dataset)s AND {where.sql} ORDER BY create_time, name"
    with datasets.store.postgres.transaction() as connection:
        rows = connection.execute(statement.encode(), {"dataset": dataset, **where.parameters})
        return [row["name"] for row in rows]


def listed(datasets: Datasets, dataset: str, text: str, page_size: int) -> list[str]:
    """Returns the names of the items of all pages."""
    request, names = ListItemsRequest(parent=dataset, filter=text, page_size=page_size), list[str]()
    while True:
        page = datasets.items.ListItems(request)
        names += [item.name for item in page.items]
        if not page.next_page_token:
            return names
        request.page_token = page.next_page_token


def test_pages_contain_what_a_scan_finds(datasets: Datasets) -> None:
    dataset, other = datasets.a_dataset(), datasets.a_dataset("other")
    for seed, name in enumerate((dataset, other)):
        RandomChanges(datasets, name, seed).make(60)
    for text in FILTERS:
        assert listed(datasets, dataset, text, 7) == scanned(datasets, dataset, text), text


def test_the_facets_of_an_item_are_those_of_its_columns(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    RandomChanges(datasets, dataset, 3).make(60)
    with datasets.store.postgres.transaction() as connection:
        rows = connection.execute("SELECT * FROM items").fetchall()
    assert rows
    for row in rows:
        columns = {
            **row,
            "annotated": row["accepted"] is not None,
            "duplicate": row["duplicate_of"] != "",
            "scored": row["scores"] is not None,
        }
        assert SPLITS[row["facets"] & 3] == row["split"]
        assert {facet: row["facets"] & bit != 0 for facet, bit in BITS.items()} == {
            facet: columns[facet] for facet in BITS
        }


def test_the_terms_of_items_are_those_of_their_columns(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    RandomChanges(datasets, dataset, 4).make(60)
    terms = "SELECT dataset, term, facets, create_time, name FROM item_terms"
    columns = """
        SELECT dataset, term, facets, create_time, name
        FROM items CROSS JOIN LATERAL item_terms_of(
            labels, shape_concepts, predicted_labels, source, object_count, duplicate_object_count, object_area_min, object_area_max,
            predicted_count, predicted_area_min, predicted_area_max, predicted_figures
        ) AS term
    """
    with datasets.store.postgres.transaction() as connection:
        assert connection.execute(terms).fetchone() is not None
        for left, right in ((terms, columns), (columns, terms)):
            assert connection.execute(f"({left}) EXCEPT ({right})".encode()).fetchall() == []


def test_the_ranges_of_figures_are_those_of_the_database(datasets: Datasets) -> None:
    values = [0.5, *map(float, BOUNDS), *(bound - 0.5 for bound in BOUNDS), *(bound + 0.5 for bound in BOUNDS)]
    statement = """
        SELECT figure_range(value) AS number FROM unnest(%s::double precision[]) WITH ORDINALITY AS given (value, place) ORDER BY place
    """
    with datasets.store.postgres.transaction() as connection:
        numbers = [row["number"] for row in connection.execute(statement, [values])]
    assert numbers == [sum(value >= bound for bound in BOUNDS) for value in values]


def test_the_view_of_names_has_nothing_else(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (created,) = datasets.add(dataset, a_medium(1))
    (item,) = datasets.items.ListItems(ListItemsRequest(parent=dataset, view=ItemView.ITEM_VIEW_NAME)).items
    assert {field.name for field, _ in item.ListFields()} == {"name", "create_time"}
    assert item.name == created.name


def test_a_page_token_belongs_to_its_filter(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), a_medium(2), a_medium(3))
    token = datasets.items.ListItems(ListItemsRequest(parent=dataset, page_size=1)).next_page_token
    request = ListItemsRequest(parent=dataset, page_size=1, page_token=token, filter="labelled")
    refusal(InvalidArgument, lambda: datasets.items.ListItems(request), "PAGE_TOKEN_INVALID")


@pytest.mark.parametrize("deleted", [False, True])
def test_a_page_token_of_the_previous_version_continues_its_list_unless_the_item_was_deleted(
    datasets: Datasets, deleted: bool
) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), a_medium(2))
    request = ListItemsRequest(parent=dataset, page_size=1)
    first = datasets.items.ListItems(request)
    request.page_token = token_of_previous_version(first.next_page_token)
    if deleted:
        datasets.items.DeleteItem(DeleteItemRequest(name=first.items[0].name))
        refusal(InvalidArgument, lambda: datasets.items.ListItems(request), "PAGE_TOKEN_INVALID")
    else:
        assert [item.name for item in datasets.items.ListItems(request).items] == scanned(datasets, dataset, "")[1:]


def token_of_previous_version(token: str) -> str:
    """Returns a token without the creation time."""
    request_hash, name, _ = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return base64.urlsafe_b64encode(json.dumps([request_hash, name]).encode()).decode()
