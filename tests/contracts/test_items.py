"""What the other services rely on of the items of datasets: of real ones and of fakes."""

import numpy as np
import pytest
from contract import contract
from peers import UNKNOWN_ITEMS, Peer, refused
from vesta_common.errors import InvalidArgument, NotFound
from vesta_common.ids import new_id
from vesta_common.media.image_labels import image_labels
from vesta_contracts.common.v1 import Media
from vesta_contracts.datasets.v1 import (
    BatchCreateItemsRequest,
    BatchGetItemsRequest,
    DatasetServiceServicer,
    DownloadItemRequest,
    GetDatasetRequest,
    GetItemRequest,
    Item,
    ItemServiceServicer,
    ListItemsRequest,
    NewItem,
    SearchItemsRequest,
    SelectItemsRequest,
    Split,
)

pytestmark = pytest.mark.no_events


def a_new_item() -> NewItem:
    """Returns an image that no dataset has."""
    digest = f"{int(new_id(), 36):064x}"[-64:]
    return NewItem(media=Media(sha256=digest, object_key=f"media/{digest}", mime_type="image/jpeg", size_bytes=9))


def listed(peer: Peer, page_size: int = 0, **fields: object) -> list[Item]:
    """Returns all pages of ListItems in the given page size."""
    request = ListItemsRequest(parent=peer.has.dataset, page_size=page_size, **fields)
    found: list[Item] = []
    while True:
        page = peer.items.ListItems(request)
        assert not page_size or len(page.items) <= page_size
        found += page.items
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


@contract(DatasetServiceServicer.GetDataset, ItemServiceServicer.ListItems, of=("conductor",))
def test_the_counts_of_a_dataset_agree_with_its_items(peer: Peer) -> None:
    counts = peer.datasets.GetDataset(GetDatasetRequest(name=peer.has.dataset)).counts
    unlabelled_test_items = len(listed(peer, filter="split = TEST AND NOT labelled"))
    assert counts.labelled_count == counts.train_labelled_count + counts.test_labelled_count == len(peer.has.labelled)
    assert counts.pool_count == counts.item_count - counts.test_item_count - counts.train_labelled_count
    assert unlabelled_test_items == counts.test_item_count - counts.test_labelled_count
    assert counts.pool_certain_count <= counts.pool_scored_count <= counts.pool_count


@contract(ItemServiceServicer.GetItem)
def test_get_item_returns_the_item_with_its_split(peer: Peer) -> None:
    for name in peer.has.items:
        item = peer.items.GetItem(GetItemRequest(name=name))
        assert item.name == name
        assert item.split in (Split.SPLIT_TRAIN, Split.SPLIT_VALIDATION, Split.SPLIT_TEST)


@contract(ItemServiceServicer.GetItem)
def test_get_item_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.dataset}/items/{UNKNOWN_ITEMS[0]}"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.items.GetItem(GetItemRequest(name=name))


@contract(ItemServiceServicer.GetItem, of=("annotation",))
def test_an_item_has_the_size_and_type_of_its_image(peer: Peer) -> None:
    media = peer.items.GetItem(GetItemRequest(name=peer.has.items[0])).media
    assert media.width_px > 0
    assert media.height_px > 0
    assert media.mime_type in ("image/jpeg", "image/png")


@contract(ItemServiceServicer.GetItem, of=("serving",))
def test_an_item_says_where_its_bytes_are_and_what_their_hash_is(peer: Peer) -> None:
    media = peer.items.GetItem(GetItemRequest(name=peer.has.items[0])).media
    assert media.object_key
    assert len(bytes.fromhex(media.sha256)) == 32
    assert media.size_bytes > 0


@contract(ItemServiceServicer.GetItem, of=("conductor",))
def test_an_item_has_accepted_annotations_exactly_if_it_was_decided(peer: Peer) -> None:
    items = [peer.items.GetItem(GetItemRequest(name=name)) for name in peer.has.items]
    assert [item.name for item in items if item.HasField("accepted")] == list(peer.has.labelled)
    assert [item.name for item in items if image_labels(item.accepted.annotations)] == list(peer.has.labelled)


@contract(ItemServiceServicer.BatchGetItems)
def test_batch_get_items_keeps_the_order(peer: Peer) -> None:
    names = [peer.has.items[place] for place in (2, 0, 1)]
    found = peer.items.BatchGetItems(BatchGetItemsRequest(parent=peer.has.dataset, names=names))
    assert [item.name for item in found.items] == names


@contract(ItemServiceServicer.BatchGetItems, ItemServiceServicer.GetItem)
def test_batch_get_items_returns_what_get_item_returns(peer: Peer) -> None:
    name = peer.has.items[0]
    (item,) = peer.items.BatchGetItems(BatchGetItemsRequest(parent=peer.has.dataset, names=[name])).items
    assert item == peer.items.GetItem(GetItemRequest(name=name))


@contract(ItemServiceServicer.BatchGetItems)
def test_batch_get_items_fails_wholly_if_one_is_unknown(peer: Peer) -> None:
    unknown = [f"{peer.has.dataset}/items/{name}" for name in UNKNOWN_ITEMS]
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=unknown[0]):
        peer.items.BatchGetItems(
            BatchGetItemsRequest(parent=peer.has.dataset, names=[peer.has.items[0], *unknown, peer.has.items[1]])
        )


@contract(ItemServiceServicer.BatchGetItems)
def test_batch_get_items_finds_no_items_of_another_dataset(peer: Peer) -> None:
    name = peer.has.items[0]
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.items.BatchGetItems(BatchGetItemsRequest(parent=f"{peer.has.dataset}-unknown", names=[name]))


@contract(ItemServiceServicer.ListItems, of=("serving",))
@pytest.mark.parametrize("page_size", [0, 1, 2, 1000])
def test_list_items_returns_each_item_once_in_order_of_creation(peer: Peer, page_size: int) -> None:
    assert [item.name for item in listed(peer, page_size)] == list(peer.has.items)


@contract(ItemServiceServicer.ListItems, ItemServiceServicer.GetItem, of=("serving",))
def test_list_items_returns_what_get_item_returns(peer: Peer) -> None:
    assert listed(peer) == [peer.items.GetItem(GetItemRequest(name=name)) for name in peer.has.items]


@contract(ItemServiceServicer.ListItems)
def test_list_items_of_an_unknown_dataset_is_not_found(peer: Peer) -> None:
    parent = f"{peer.has.dataset}-unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=parent):
        peer.items.ListItems(ListItemsRequest(parent=parent, filter="split = TEST AND NOT labelled"))


@contract(ItemServiceServicer.ListItems, of=("serving",))
def test_list_items_returns_one_embedding_per_item_if_asked(peer: Peer) -> None:
    page = peer.items.ListItems(ListItemsRequest(parent=peer.has.dataset, page_size=2, embeddings=True))
    assert len(page.items) == len(page.embeddings) == 2
    for embedding in page.embeddings:
        assert embedding.digest
        assert np.linalg.norm(np.frombuffer(embedding.values, "<f4")) == pytest.approx(1, abs=1e-4)
    assert not peer.items.ListItems(ListItemsRequest(parent=peer.has.dataset, page_size=2)).embeddings


@contract(ItemServiceServicer.ListItems, ItemServiceServicer.GetItem, of=("conductor",))
@pytest.mark.parametrize("page_size", [0, 1])
def test_list_items_filters_unlabelled_items_of_the_test_split(peer: Peer, page_size: int) -> None:
    items = [peer.items.GetItem(GetItemRequest(name=name)) for name in peer.has.items]
    unlabelled = [item.name for item in items if item.split == Split.SPLIT_TEST and not item.HasField("accepted")]
    assert unlabelled
    assert [item.name for item in listed(peer, page_size, filter="split = TEST AND NOT labelled")] == unlabelled


@contract(ItemServiceServicer.ListItems, of=("conductor",))
def test_list_items_filters_labelled_items_by_their_last_change(peer: Peer) -> None:
    recent = 'labelled AND update_time >= "2020-01-01T00:00:00+00:00"'
    assert [item.name for item in listed(peer, filter=recent)] == list(peer.has.labelled)
    assert not listed(peer, filter='labelled AND update_time >= "2100-01-01T00:00:00+00:00"')


@contract(ItemServiceServicer.BatchCreateItems)
def test_batch_create_items_makes_one_item_per_image_in_the_order_of_the_request(peer: Peer) -> None:
    first, second = a_new_item(), a_new_item()
    made = peer.items.BatchCreateItems(
        BatchCreateItemsRequest(parent=peer.has.spare_dataset, items=[first, second])
    ).items
    again = peer.items.BatchCreateItems(
        BatchCreateItemsRequest(parent=peer.has.spare_dataset, items=[second, a_new_item(), first])
    ).items
    assert [item.already_existed for item in made] == [False, False]
    assert [item.already_existed for item in again] == [True, False, True]
    assert [again[2].name, again[0].name] == [item.name for item in made]
    assert len({item.name for item in [*made, *again]}) == 3
    assert all(item.name.startswith(f"{peer.has.spare_dataset}/items/") for item in again)


@contract(ItemServiceServicer.BatchCreateItems)
def test_an_image_that_is_twice_in_a_batch_is_one_item(peer: Peer) -> None:
    new = a_new_item()
    made = peer.items.BatchCreateItems(BatchCreateItemsRequest(parent=peer.has.spare_dataset, items=[new, new])).items
    assert made[0].name == made[1].name
    assert [item.already_existed for item in made] == [False, True]


@contract(ItemServiceServicer.BatchCreateItems)
def test_batch_create_items_returns_the_first_response_of_a_request_id(peer: Peer) -> None:
    request = BatchCreateItemsRequest(parent=peer.has.spare_dataset, items=[a_new_item()], request_id=new_id())
    assert peer.items.BatchCreateItems(request) == peer.items.BatchCreateItems(request)


@contract(ItemServiceServicer.BatchCreateItems)
def test_batch_create_items_rejects_a_request_id_of_another_request(peer: Peer) -> None:
    request = BatchCreateItemsRequest(parent=peer.has.spare_dataset, items=[a_new_item()], request_id=new_id())
    peer.items.BatchCreateItems(request)
    request.items[0].CopyFrom(a_new_item())
    with refused(InvalidArgument, "REQUEST_ID_REUSED", request_id=request.request_id):
        peer.items.BatchCreateItems(request)


@contract(ItemServiceServicer.BatchCreateItems)
def test_batch_create_items_in_an_unknown_dataset_is_not_found(peer: Peer) -> None:
    parent = f"{peer.has.spare_dataset}-unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=parent):
        peer.items.BatchCreateItems(BatchCreateItemsRequest(parent=parent, items=[a_new_item()]))


@contract(ItemServiceServicer.SelectItems, ItemServiceServicer.GetItem)
def test_select_items_chooses_unlabelled_items_of_the_train_split_that_are_not_excluded(peer: Peer) -> None:
    items = [peer.items.GetItem(GetItemRequest(name=name)) for name in peer.has.items]
    pool = {item.name for item in items if item.split == Split.SPLIT_TRAIN and not item.HasField("accepted")}
    excluded = min(pool)
    chosen = peer.items.SelectItems(
        SelectItemsRequest(parent=peer.has.dataset, count=len(items), excluded=[excluded])
    ).items
    assert len({choice.item for choice in chosen}) == len(chosen)
    assert {choice.item for choice in chosen} == pool - {excluded}
    assert all(choice.reason for choice in chosen)


@contract(ItemServiceServicer.SelectItems, of=("conductor",))
def test_select_items_of_the_test_split_draws_unlabelled_items_that_are_not_excluded(peer: Peer) -> None:
    free = {item.name for item in listed(peer, filter="split = TEST AND NOT labelled")}
    request = SelectItemsRequest(parent=peer.has.dataset, count=100, split=Split.SPLIT_TEST, excluded=[min(free)])
    drawn = peer.items.SelectItems(request)
    assert {choice.item for choice in drawn.items} == free - {min(free)}
    assert drawn.pool_count == len(free) - 1
    assert not any(choice.pre_annotations for choice in drawn.items)


@contract(ItemServiceServicer.SelectItems)
def test_select_items_chooses_at_most_the_given_count(peer: Peer) -> None:
    assert len(peer.items.SelectItems(SelectItemsRequest(parent=peer.has.dataset, count=2)).items) == 2


@contract(ItemServiceServicer.SelectItems)
def test_select_items_of_an_unknown_dataset_is_not_found(peer: Peer) -> None:
    parent = f"{peer.has.dataset}-unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=parent):
        peer.items.SelectItems(SelectItemsRequest(parent=parent, count=1))


@contract(ItemServiceServicer.SearchItems)
def test_search_items_of_an_unknown_dataset_is_not_found(peer: Peer) -> None:
    parent = f"{peer.has.dataset}-unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=parent):
        peer.items.SearchItems(SearchItemsRequest(parent=parent, item=f"{parent}/items/one"))


@contract(ItemServiceServicer.DownloadItem)
def test_download_item_streams_the_image(peer: Peer) -> None:
    chunks = list(peer.items.DownloadItem(DownloadItemRequest(name=peer.has.items[0])))
    assert {chunk.content_type for chunk in chunks} == {"image/jpeg"}
    assert b"".join(chunk.data for chunk in chunks)


@contract(ItemServiceServicer.DownloadItem)
def test_download_item_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.dataset}/items/{UNKNOWN_ITEMS[0]}"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        list(peer.items.DownloadItem(DownloadItemRequest(name=name)))
