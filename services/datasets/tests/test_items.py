"""Items over gRPC: stored once, in one split, listed by filters and found by similarity."""

from datetime import timedelta

import numpy as np
import pytest
from datasets_builders import DIMENSION, Datasets, a_medium, refusal
from google.protobuf.field_mask_pb2 import FieldMask
from vesta_common.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
)
from vesta_common.storage.packs import put_pack
from vesta_contracts.datasets.v1 import (
    BatchCreateItemsRequest,
    DeleteItemRequest,
    DownloadItemRequest,
    Embedding,
    GetItemRequest,
    Item,
    ItemEmbedding,
    ItemVariant,
    ListItemsRequest,
    NewItem,
    SearchItemsRequest,
    Split,
    UpdateItemRequest,
)


def test_an_image_is_stored_once_and_published_once(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (first,) = datasets.add(dataset, a_medium(1))
    again, fresh = datasets.add(dataset, a_medium(1), a_medium(2))
    assert (again.name, again.already_existed, fresh.already_existed) == (first.name, True, False)
    assert datasets.counts(dataset).item_count == 2
    assert datasets.event_types() == ["item.v1.created", "item.v1.created"]


def test_a_repeated_batch_returns_the_first_answer(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    request = BatchCreateItemsRequest(parent=dataset, items=[NewItem(media=a_medium(1))], request_id="r")
    assert datasets.items.BatchCreateItems(request) == datasets.items.BatchCreateItems(request)


def test_near_duplicates_get_the_split_of_the_first_despite_the_request(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    founder = a_medium(1)
    (first,) = datasets.add(dataset, founder, split=Split.SPLIT_TEST)
    (second,) = datasets.add(dataset, a_medium(2, founder.perceptual_hash ^ 0b11), split=Split.SPLIT_TRAIN)
    assert (second.split, second.duplicate_of) == (Split.SPLIT_TEST, first.name)


def test_clients_can_add_only_images_that_the_project_has(datasets: Datasets) -> None:
    dataset, other = datasets.a_dataset(), datasets.a_dataset("copy")
    datasets.add(dataset, a_medium(1))
    stolen = a_medium(1)
    stolen.thumbnail_key = "models/secret"

    def ask(media):  # type: ignore[no-untyped-def]
        request = BatchCreateItemsRequest(parent=other, items=[NewItem(media=media)])
        return datasets.store and datasets.outside.BatchCreateItems(request)

    assert not ask(a_medium(1)).items[0].already_existed
    refusal(InvalidArgument, lambda: ask(a_medium(2)), "MEDIA_UNKNOWN")
    refusal(InvalidArgument, lambda: ask(stolen), "MEDIA_UNKNOWN")


@pytest.mark.parametrize("is_packed", [False, True])
def test_an_image_and_its_thumbnail_are_returned_as_stored(datasets: Datasets, *, is_packed: bool) -> None:
    picture = datasets.objects.put("media", b"a picture")
    media = a_medium(1)
    media.sha256, media.object_key, media.thumbnail_key = picture.sha256, picture.key, f"thumbnails/{picture.sha256}"
    datasets.objects.put_named(media.thumbnail_key, b"a small picture")
    if is_packed:
        _, media.thumbnail_key = put_pack(datasets.objects, "thumbnails", [b"another one", b"a small picture"])
    (item,) = datasets.add(datasets.a_dataset(), media)

    def downloaded(variant: ItemVariant.ValueType) -> bytes:
        request = DownloadItemRequest(name=item.name, variant=variant)
        return b"".join(chunk.data for chunk in datasets.items.DownloadItem(request))

    assert downloaded(ItemVariant.ITEM_VARIANT_UNSPECIFIED) == b"a picture"
    assert downloaded(ItemVariant.ITEM_VARIANT_THUMBNAIL) == b"a small picture"


def test_for_clients_the_stored_media_replace_those_of_the_request(datasets: Datasets) -> None:
    dataset, other = datasets.a_dataset(), datasets.a_dataset("copy")
    datasets.add(dataset, a_medium(1))
    told = a_medium(1, perceptual_hash=0)
    told.width_px, told.mime_type = 9999, "image/png"
    (item,) = datasets.outside.BatchCreateItems(
        BatchCreateItemsRequest(parent=other, items=[NewItem(media=told, metadata={"camera": "door"})])
    ).items
    kept = datasets.items.GetItem(GetItemRequest(name=item.name))
    assert (kept.media, kept.metadata) == (a_medium(1), {"camera": "door"})


def test_when_the_first_of_a_group_is_deleted_the_oldest_near_duplicate_replaces_it(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    near = [a_medium(number, a_medium(1).perceptual_hash ^ number - 1) for number in (1, 2, 3)]
    first, second, third = datasets.add(dataset, *near, split=Split.SPLIT_TRAIN)
    assert datasets.counts(dataset).pool_count == 1
    datasets.items.DeleteItem(DeleteItemRequest(name=first.name))
    left = [datasets.items.GetItem(GetItemRequest(name=name)) for name in datasets.listed(dataset)]
    assert [(item.name, item.duplicate_of) for item in left] == [(second.name, ""), (third.name, second.name)]
    assert datasets.counts(dataset).pool_count == 1
    (fourth,) = datasets.add(dataset, a_medium(4, a_medium(1).perceptual_hash), split=Split.SPLIT_TEST)
    assert fourth.split == Split.SPLIT_TRAIN


def test_older_scores_do_not_replace_newer_ones(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    datasets.scored(dataset, [item.name], generation=2, van=0.9, space="new")
    datasets.scored(dataset, [item.name], generation=1, van=0.1, space="old")
    assert datasets.items.GetItem(GetItemRequest(name=item.name)).prediction.model_version.endswith("/2")
    counts = datasets.counts(dataset)
    assert (counts.scored_model_version.rpartition("/")[2], counts.scored_count) == ("2", 1)
    with datasets.store.postgres.transaction() as connection:
        found = datasets.store.predictions.find_embedding(connection, item.name)
    assert found is not None
    assert found[0] == "new"


def test_items_are_listed_with_their_embeddings_on_request(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(3)))]
    datasets.scored(dataset, names[1:], space="new")
    request = ListItemsRequest(parent=dataset, page_size=2)
    assert not datasets.items.ListItems(request).embeddings
    request.embeddings = True
    first = datasets.items.ListItems(request)
    request.page_token = first.next_page_token
    second = datasets.items.ListItems(request)
    listed = [*first.items, *second.items]
    embeddings = [*first.embeddings, *second.embeddings]
    assert [item.name for item in listed] == sorted(names)
    by_name = dict(zip([item.name for item in listed], embeddings, strict=True))
    with datasets.store.postgres.connect() as fresh:  # a connection without the registered vector type
        assert datasets.store.predictions.find_embeddings(fresh, names).keys() == set(names[1:])
    assert by_name[names[0]] == ItemEmbedding()
    for name in names[1:]:
        assert by_name[name].digest == "new"
        assert np.linalg.norm(np.frombuffer(by_name[name].values, "<f4")) == pytest.approx(1.0, abs=1e-5)


def test_items_are_filtered_by_their_fields(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [
        one.name
        for one in datasets.add(dataset, *map(a_medium, range(4)), split=Split.SPLIT_TRAIN, metadata={"camera": "door"})
    ]
    datasets.annotate(dataset, names[0], "van")
    datasets.scored(dataset, names[:2])
    assert datasets.listed(dataset, "labelled") == [names[0]]
    assert datasets.listed(dataset, 'label = "van" AND split = TRAIN') == [names[0]]
    assert len(datasets.listed(dataset, "NOT labelled")) == 3
    assert len(datasets.listed(dataset, "uncertain AND score < 0.7")) == 2
    assert len(datasets.listed(dataset, "metadata.camera = door")) == 4
    refusal(InvalidArgument, lambda: datasets.listed(dataset, "colour = red"), "FILTER_INVALID")


def test_recently_labelled_items_are_filtered_by_update_time(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    earlier, later, _ = (item.name for item in datasets.add(dataset, *(a_medium(number) for number in range(3))))
    datasets.annotate(dataset, earlier, "van")
    datasets.advance(timedelta(minutes=5))
    datasets.annotate(dataset, later, "van")
    since = (datasets.store.clock.now() - timedelta(minutes=1)).isoformat()
    assert datasets.listed(dataset, f'labelled AND update_time >= "{since}"') == [later]


def test_the_nearest_item_is_itself_and_invalid_embeddings_are_rejected(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(5)))]
    query = SearchItemsRequest(parent=dataset, item=names[0])
    refusal(FailedPrecondition, lambda: datasets.items.SearchItems(query), "EMBEDDING_MISSING")
    datasets.scored(dataset, names)
    found = datasets.items.SearchItems(query).neighbours
    assert (found[0].item.name, len(found)) == (names[0], 5)
    zero = SearchItemsRequest(parent=dataset, embedding=Embedding(values=[0.0] * DIMENSION))
    refusal(InvalidArgument, lambda: datasets.items.SearchItems(zero), "EMBEDDING_INVALID")
    longer = SearchItemsRequest(parent=dataset, embedding=Embedding(values=[1.0] * (DIMENSION + 1)))
    refusal(InvalidArgument, lambda: datasets.items.SearchItems(longer), "EMBEDDING_INVALID")


def test_an_embedding_is_compared_with_items_of_its_space(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(3)))]
    datasets.scored(dataset, names, space="old")
    datasets.scored(dataset, names[2:], generation=2, space="new")

    def found(digest: str) -> set[str]:
        embedding = Embedding(values=[1.0] + [0.0] * (DIMENSION - 1), digest=digest)
        response = datasets.items.SearchItems(SearchItemsRequest(parent=dataset, embedding=embedding))
        return {one.item.name for one in response.neighbours}

    assert (found(""), found("old"), found("new")) == (set(names[:2]), set(names[:2]), {names[2]})
    refusal(FailedPrecondition, lambda: found("unknown"), "EMBEDDING_MISSING")


def test_a_stale_etag_changes_nothing(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    stale = Item(name=item.name, metadata={"a": "b"}, etag="0" * 16)
    request = UpdateItemRequest(item=stale, update_mask=FieldMask(paths=["metadata"]))
    refusal(Aborted, lambda: datasets.items.UpdateItem(request), "ETAG_STALE")
    stale.etag = ""
    assert datasets.items.UpdateItem(UpdateItemRequest(item=stale, update_mask=request.update_mask)).metadata == {
        "a": "b"
    }
