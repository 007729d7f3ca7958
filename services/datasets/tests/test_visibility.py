"""Predictions are hidden from annotators: in items, in filters and in similarity searches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from datasets_builders import PROJECT, Datasets, a_medium
from vesta_common import trace
from vesta_common.errors import NotFound, PermissionDenied
from vesta_contracts.datasets.v1 import (
    BatchGetItemsRequest,
    DatasetView,
    GetDatasetRequest,
    GetItemRequest,
    Item,
    ListItemsRequest,
    SearchItemsRequest,
)


@contextmanager
def acting_as(role: str) -> Iterator[None]:
    with trace.calling(f"{PROJECT}/members/ada", role):
        yield


def readings(datasets: Datasets, dataset: str, name: str) -> list[Item]:
    """Returns the item from every call that returns it to an annotator."""
    return [
        datasets.outside.GetItem(GetItemRequest(name=name)),
        *datasets.outside.ListItems(ListItemsRequest(parent=dataset)).items,
        *datasets.outside.BatchGetItems(BatchGetItemsRequest(parent=dataset, names=[name])).items,
    ]


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(PermissionDenied) as refused:
        call()
    return refused.value.reason


def test_an_annotator_reads_an_item_without_its_scores(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    datasets.scored(dataset, [item.name])
    with acting_as("annotator"):
        hidden = readings(datasets, dataset, item.name)
    with acting_as("reviewer"):
        shown = readings(datasets, dataset, item.name)
    assert [one.HasField("prediction") for one in hidden] == [False] * 3
    assert [one.HasField("prediction") for one in shown] == [True] * 3
    assert hidden[0].media == shown[0].media
    assert hidden[0].etag != shown[0].etag  # otherwise the etag would confirm guessed scores


@pytest.mark.parametrize(
    "filter_text",
    ["predicted = van", "uncertain", "NOT scored", "score > 0.5", "margin < 0.5", "labelled AND model_version = x"],
)
def test_an_annotator_cannot_filter_by_predictions(datasets: Datasets, filter_text: str) -> None:
    dataset = datasets.a_dataset()
    request = ListItemsRequest(parent=dataset, filter=filter_text)
    with acting_as("annotator"):
        assert refusal(lambda: datasets.outside.ListItems(request)) == "PREDICTION_HIDDEN"
        datasets.outside.ListItems(ListItemsRequest(parent=dataset, filter="NOT labelled AND split = TRAIN"))
    with acting_as("viewer"):
        datasets.outside.ListItems(request)


def test_an_annotator_gets_no_embeddings_and_no_neighbours(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    datasets.scored(dataset, [item.name])
    with acting_as("annotator"):
        for call in (
            lambda: datasets.outside.ListItems(ListItemsRequest(parent=dataset, embeddings=True)),
            lambda: datasets.outside.SearchItems(SearchItemsRequest(parent=dataset, item=item.name)),
        ):
            assert refusal(call) == "PREDICTION_HIDDEN"


def test_requested_items_are_returned_in_order_and_of_one_dataset_only(datasets: Datasets) -> None:
    dataset, other = datasets.a_dataset(), datasets.a_dataset("others")
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(3)))]
    (stranger,) = datasets.add(other, a_medium(9))
    wanted = [names[2], names[0]]
    found = datasets.items.BatchGetItems(BatchGetItemsRequest(parent=dataset, names=wanted)).items
    assert [item.name for item in found] == wanted
    for name in (stranger.name, f"{dataset}/items/gone"):
        with pytest.raises(NotFound) as refused:
            datasets.items.BatchGetItems(BatchGetItemsRequest(parent=dataset, names=[names[0], name]))
        assert refused.value.metadata == {"name": name}


def test_a_dataset_is_returned_without_counts_on_request(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1))
    basic = datasets.datasets.GetDataset(GetDatasetRequest(name=dataset, view=DatasetView.DATASET_VIEW_BASIC))
    full = datasets.datasets.GetDataset(GetDatasetRequest(name=dataset))
    assert not basic.HasField("counts")
    assert full.counts.item_count == 1
    assert (basic.taxonomy, basic.etag) == (full.taxonomy, full.etag)
