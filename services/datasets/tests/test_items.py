"""The datasets service over gRPC: items are stored once, are in one split, and snapshots are immutable."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from datasets_builders import DIMENSION, PROJECT, Datasets, a_medium, a_zip, refusal, says
from google.api import httpbody_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from vesta_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from vesta_common.events.cloudevents import new_event
from vesta_common.storage.objects import ObjectRef, ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.common.v1 import Annotation, ConceptScore, ImageScores, Keyframe, Mask, PixelBox, Track
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    BatchAnnotateItemsRequest,
    BatchCreateItemsRequest,
    Concept,
    CreateDatasetRequest,
    CreateSnapshotRequest,
    CreateTaxonomyRequest,
    Dataset,
    DeleteDatasetRequest,
    DeleteItemRequest,
    DeleteTaxonomyRequest,
    DiffSnapshotsRequest,
    DownloadItemRequest,
    Embedding,
    ExportDatasetRequest,
    GetDatasetRequest,
    GetItemRequest,
    ImportDatasetRequest,
    Item,
    ItemAnnotations,
    ItemEmbedding,
    ItemVariant,
    ListDatasetsRequest,
    ListItemsRequest,
    NewItem,
    SearchItemsRequest,
    SelectionStrategy,
    SelectItemsRequest,
    Snapshot,
    SnapshotCreated,
    Split,
    SplitPolicy,
    Taxonomy,
    UpdateDatasetRequest,
    UpdateItemRequest,
    UpdateTaxonomyRequest,
    UploadArchiveRequest,
)
from vesta_datasets.api.item_service import ItemService
from vesta_datasets.api.snapshot_service import SnapshotService
from vesta_datasets.selection.candidates import Candidates
from vesta_datasets.store.pool import CandidatePool, PoolLimits


def test_a_picture_is_there_once_and_told_once(datasets: Datasets) -> None:
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


def test_near_duplicates_share_the_side_of_the_first_whatever_is_asked(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    founder = a_medium(1)
    (first,) = datasets.add(dataset, founder, split=Split.SPLIT_TEST)
    (second,) = datasets.add(dataset, a_medium(2, founder.perceptual_hash ^ 0b11), split=Split.SPLIT_TRAIN)
    assert (second.split, second.duplicate_of) == (Split.SPLIT_TEST, first.name)


def test_from_outside_only_pictures_that_the_project_holds_are_taken(datasets: Datasets) -> None:
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


def test_a_picture_and_its_thumbnail_come_as_they_were_stored(datasets: Datasets) -> None:
    picture = datasets.objects.put("media", b"a picture")
    media = a_medium(1)
    media.sha256, media.object_key, media.thumbnail_key = picture.sha256, picture.key, f"thumbnails/{picture.sha256}"
    datasets.objects.put_named(media.thumbnail_key, b"a small picture")
    (item,) = datasets.add(datasets.a_dataset(), media)

    def downloaded(variant: ItemVariant.ValueType) -> bytes:
        request = DownloadItemRequest(name=item.name, variant=variant)
        return b"".join(chunk.data for chunk in datasets.items.DownloadItem(request))

    assert downloaded(ItemVariant.ITEM_VARIANT_UNSPECIFIED) == b"a picture"
    assert downloaded(ItemVariant.ITEM_VARIANT_THUMBNAIL) == b"a small picture"


def test_from_outside_a_picture_is_what_the_project_knows_of_it(datasets: Datasets) -> None:
    dataset, other = datasets.a_dataset(), datasets.a_dataset("copy")
    datasets.add(dataset, a_medium(1))
    told = a_medium(1, perceptual_hash=0)
    told.width_px, told.mime_type = 9999, "image/png"
    (item,) = datasets.outside.BatchCreateItems(
        BatchCreateItemsRequest(parent=other, items=[NewItem(media=told, metadata={"camera": "door"})])
    ).items
    kept = datasets.items.GetItem(GetItemRequest(name=item.name))
    assert (kept.media, kept.metadata) == (a_medium(1), {"camera": "door"})


def test_a_label_beside_a_shape_is_still_one_of_two(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    box = Annotation(concept="van", box=PixelBox(x_max_px=9, y_max_px=9))

    def ask(*annotations: Annotation) -> None:
        entry = ItemAnnotations(item=item.name, annotations=annotations)
        datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=[entry]))

    refusal(InvalidArgument, lambda: ask(*says("van", "car"), box), "LABEL_NOT_SINGLE")
    ask(*says("car"), box)


def test_a_correction_leaves_a_control_item_one(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    told = TaskAccepted(task="t", item=item.name, annotations=says("van"), control=True)
    datasets.handle(new_event("annotation", "t", told, datasets.store.clock.now()))
    datasets.annotate(dataset, item.name, "car")
    assert datasets.items.GetItem(GetItemRequest(name=item.name)).accepted.control


def test_when_the_founder_of_a_group_is_deleted_the_oldest_near_duplicate_takes_its_place(datasets: Datasets) -> None:
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


def test_what_straddles_two_sides_counts_as_labelled_on_neither(datasets: Datasets) -> None:
    dataset, far = datasets.a_dataset(), a_medium(1).perceptual_hash
    datasets.add(dataset, a_medium(1, far), split=Split.SPLIT_TRAIN)
    datasets.add(dataset, a_medium(2, far ^ 0xFF), split=Split.SPLIT_TEST)
    datasets.add(dataset, a_medium(3, far ^ 0x0F), labels=("van",))
    counts = datasets.counts(dataset)
    assert (counts.item_count, counts.train_labelled_count, counts.test_labelled_count) == (3, 0, 0)


def test_a_page_of_datasets_bears_the_counts_of_each(datasets: Datasets) -> None:
    first, second = datasets.a_dataset("a"), datasets.a_dataset("b")
    datasets.scored(first, [one.name for one in datasets.add(first, a_medium(1), a_medium(2), labels=("van",))])
    listed = datasets.datasets.ListDatasets(ListDatasetsRequest(parent=PROJECT)).datasets
    assert [one.name for one in listed] == [first, second]
    assert [(one.counts.labelled_count, one.counts.embedded_count) for one in listed] == [(2, 2), (0, 0)]
    assert listed[0].counts == datasets.counts(first)


def test_a_dataset_takes_only_a_taxonomy_that_has_what_its_items_bear(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))

    def ask(taxonomy: str) -> Dataset:
        request = UpdateDatasetRequest(
            dataset=Dataset(name=dataset, taxonomy=taxonomy), update_mask=FieldMask(paths=["taxonomy"])
        )
        return datasets.datasets.UpdateDataset(request)

    for name, concepts in {"cars": ["car"], "more": ["van", "car", "bus"]}.items():
        taxonomy = Taxonomy(concepts=[Concept(id=concept) for concept in concepts])
        datasets.taxonomies.CreateTaxonomy(CreateTaxonomyRequest(parent=PROJECT, taxonomy_id=name, taxonomy=taxonomy))
    refusal(InvalidArgument, lambda: ask(f"{PROJECT}/taxonomies/cars"), "CONCEPT_IN_USE")
    refusal(InvalidArgument, lambda: ask(""), "FIELD_INVALID")
    refusal(NotFound, lambda: ask(f"{PROJECT}/taxonomies/none"), "RESOURCE_NOT_FOUND")
    assert ask(f"{PROJECT}/taxonomies/more").taxonomy == f"{PROJECT}/taxonomies/more"


def test_an_export_is_of_a_snapshot_of_its_dataset(datasets: Datasets) -> None:
    dataset, other = datasets.a_dataset(), datasets.a_dataset("other")
    datasets.add(other, a_medium(1), labels=("van",))
    snapshot = datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=other, snapshot=Snapshot())).name
    request = ExportDatasetRequest(name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_COCO, snapshot=snapshot)
    refusal(NotFound, lambda: datasets.datasets.ExportDataset(request), "RESOURCE_NOT_FOUND")


def test_a_snapshot_of_many_concepts_can_be_told(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))
    datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    with datasets.store.postgres.transaction() as connection:
        row = connection.execute("SELECT value FROM outbox ORDER BY id DESC LIMIT 1").fetchone()
    assert row is not None
    told = SnapshotCreated.FromString(bytes(row["value"])).snapshot
    assert (told.item_count, told.HasField("statistics")) == (1, False)


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        (says("bus"), "CONCEPT_UNKNOWN"),
        (says("van", "car"), "LABEL_NOT_SINGLE"),
        ([Annotation(concept="van")], "SHAPE_MISSING"),
        ([Annotation(concept="van", box=PixelBox(x_max_px=999, y_max_px=9))], "SHAPE_OUTSIDE_IMAGE"),
        ([Annotation(concept="van", box=PixelBox(x_max_px=9))], "SHAPE_INVALID"),
        ([Annotation(concept="van", track=Track(track_id="1", keyframes=[Keyframe()]))], "SHAPE_NEEDS_CLIP"),
        ([Annotation(concept="van", mask=Mask(height_px=9, width_px=9, runs_px=[81]))], "MASK_SIZE_MISMATCH"),
        ([Annotation(concept="van", mask=Mask(height_px=48, width_px=64, runs_px=[7]))], "MASK_RUNS_INVALID"),
    ],
)
def test_labels_that_make_no_sense_are_refused_all_or_none(
    datasets: Datasets, annotations: list[Annotation], reason: str
) -> None:
    dataset = datasets.a_dataset()
    good, bad = datasets.add(dataset, a_medium(1), a_medium(2))
    entries = [
        ItemAnnotations(item=good.name, annotations=says("van")),
        ItemAnnotations(item=bad.name, annotations=annotations),
    ]
    request = BatchAnnotateItemsRequest(parent=dataset, items=entries)
    refusal(InvalidArgument, lambda: datasets.items.BatchAnnotateItems(request), reason)
    assert datasets.counts(dataset).labelled_count == 0


def test_only_what_a_second_person_has_checked_counts_as_reviewed(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))
    datasets.add(dataset, a_medium(2), labels=("van",), reviewed=True)
    third, fourth = datasets.add(dataset, a_medium(3), a_medium(4))
    entries = [
        ItemAnnotations(item=third.name, annotations=says("van")),
        ItemAnnotations(item=fourth.name, annotations=says("van"), reviewed=True),
    ]
    datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=entries))
    assert len(datasets.listed(dataset, "labelled")) == 4
    assert len(datasets.listed(dataset, "reviewed")) == 2
    snapshot = datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    assert snapshot.statistics.reviewed_count == 2


def test_an_expert_s_answer_is_kept_with_its_item_and_told(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    told = TaskAccepted(
        task="t", item=item.name, annotations=says("van"), annotators=["ada"], reviewer="rosa", control=True
    )
    datasets.handle(new_event("annotation", "t", told, datasets.store.clock.now()))
    accepted = datasets.items.GetItem(GetItemRequest(name=item.name)).accepted
    assert ([one.concept for one in accepted.annotations], accepted.reviewed, accepted.control) == (["van"], True, True)
    assert datasets.event_types()[-1] == "item.v1.annotated"


def test_an_answer_for_a_deleted_item_changes_nothing(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    told = TaskAccepted(task="t", item=f"{dataset}/items/gone", annotations=says("van"))
    datasets.handle(new_event("annotation", "t", told, datasets.store.clock.now()))
    assert datasets.event_types() == []


def test_older_scores_do_not_replace_newer_ones(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    datasets.scored(dataset, [item.name], generation=2, van=0.9, space="new")
    datasets.scored(dataset, [item.name], generation=1, van=0.1, space="old")
    assert datasets.items.GetItem(GetItemRequest(name=item.name)).scores.model_version.endswith("/2")
    counts = datasets.counts(dataset)
    assert (counts.scored_model_version.rpartition("/")[2], counts.scored_count) == ("2", 1)
    with datasets.store.postgres.transaction() as connection:
        found = datasets.store.predictions.find_embedding(connection, item.name)
    assert found is not None
    assert found[0] == "new"


def test_items_are_listed_with_their_embeddings_where_those_are_asked_for(datasets: Datasets) -> None:
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


def test_items_are_found_by_what_is_known_of_them(datasets: Datasets) -> None:
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


def test_what_was_labelled_lately_is_found_by_its_time(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    earlier, later, _ = (item.name for item in datasets.add(dataset, *(a_medium(number) for number in range(3))))
    datasets.annotate(dataset, earlier, "van")
    datasets.advance(timedelta(minutes=5))
    datasets.annotate(dataset, later, "van")
    since = (datasets.store.clock.now() - timedelta(minutes=1)).isoformat()
    assert datasets.listed(dataset, f'labelled AND update_time >= "{since}"') == [later]


def test_the_most_alike_item_is_itself_and_strangers_are_refused(datasets: Datasets) -> None:
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


def test_selection_needs_embeddings_unless_it_is_random(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, *map(a_medium, range(10)), split=Split.SPLIT_TRAIN)
    request = SelectItemsRequest(parent=dataset, count=3)
    refusal(FailedPrecondition, lambda: datasets.items.SelectItems(request), "EMBEDDING_MISSING")
    request.strategy = SelectionStrategy.SELECTION_STRATEGY_RANDOM
    assert len(datasets.items.SelectItems(request).items) == 3


def test_selection_leaves_out_what_is_labelled_excluded_or_tested_and_marks_its_control_arm(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(30)), split=Split.SPLIT_TRAIN)]
    datasets.add(dataset, a_medium(99), split=Split.SPLIT_TEST)
    datasets.scored(dataset, names)
    datasets.annotate(dataset, names[0], "van")
    request = SelectItemsRequest(parent=dataset, count=100, excluded=[names[1]], control_share=0.5, seed=3)
    chosen = datasets.items.SelectItems(request)
    assert {one.item for one in chosen.items} == set(names[2:])
    assert chosen.pool_count == 28
    assert sum(one.control for one in chosen.items) == 14
    assert all(one.pre_annotations[0].concept == "van" and one.reason for one in chosen.items)
    assert datasets.items.SelectItems(request) == chosen


def test_a_multi_label_items_predicted_labels_are_those_that_serving_decided(datasets: Datasets) -> None:
    dataset = datasets.a_dataset(multi_label=True)
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(2)), split=Split.SPLIT_TRAIN)]
    low, high = {"threshold": 0.1}, {"threshold": 0.9}
    both = [
        ConceptScore(concept="car", score=0.95, predicted=True, **high),
        ConceptScore(concept="van", score=0.2, predicted=True, **low),
    ]
    none = [ConceptScore(concept="car", score=0.8, **high), ConceptScore(concept="van", score=0.05, **low)]
    said = [ImageScores(model_version="m", scores=scores) for scores in (both, none)]
    datasets.predicts(dataset, dict(zip(names, said, strict=True)))
    chosen = datasets.items.SelectItems(
        SelectItemsRequest(parent=dataset, count=2, strategy=SelectionStrategy.SELECTION_STRATEGY_MARGIN)
    ).items

    assert {one.item: [label.concept for label in one.pre_annotations] for one in chosen} == {
        names[0]: ["car", "van"],
        names[1]: [],
    }
    assert datasets.listed(dataset, "predicted = van") == datasets.listed(dataset, "predicted : car") == [names[0]]
    assert datasets.listed(dataset, "predicted != car") == [names[1]]


def test_a_single_label_items_predicted_label_is_the_best(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1), split=Split.SPLIT_TRAIN)
    datasets.scored(dataset, [item.name])
    assert datasets.listed(dataset, "predicted = van") == [item.name]
    assert datasets.listed(dataset, "predicted = car") == []


def test_of_a_pool_too_large_to_hold_selection_sees_a_sample_of_each_kind(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(9)), split=Split.SPLIT_TRAIN)]
    datasets.scored(dataset, names)
    datasets.annotate(dataset, names[0], "van")

    pool = CandidatePool(PoolLimits(free_max=3, held_max=1))

    def drawn(seed: int) -> Candidates:
        with datasets.store.postgres.transaction() as connection:
            return pool.read(connection, dataset, "space", names[1:3], seed)

    seen = [drawn(seed) for seed in range(40)]
    for candidates in seen:
        assert sorted(row.held for row in candidates.rows) == [False, False, False, True]
        assert (candidates.free_count, candidates.embeddings.shape) == (6, (4, DIMENSION))
        assert candidates.embedded.all()
        np.testing.assert_allclose(np.linalg.norm(candidates.embeddings, axis=1), 1.0, atol=1e-5)
    assert drawn(7).rows == seen[7].rows
    assert {row.name for candidates in seen for row in candidates.rows} == set(names)


def test_selections_come_one_after_another(datasets: Datasets) -> None:
    service = ItemService(datasets.store, datasets.objects, wait_max=timedelta(milliseconds=1))
    request = SelectItemsRequest(
        parent=datasets.a_dataset(), count=1, strategy=SelectionStrategy.SELECTION_STRATEGY_RANDOM
    )
    with service.selecting:
        refusal(ResourceExhausted, lambda: service.SelectItems(request, None), "SELECTION_BUSY")
    assert not service.SelectItems(request, None).items  # type: ignore[arg-type]


def test_a_snapshot_stays_what_it_was_and_a_diff_tells_what_changed(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(3)))]
    empty = CreateSnapshotRequest(parent=dataset, snapshot=Snapshot())
    refusal(FailedPrecondition, lambda: datasets.snapshots.CreateSnapshot(empty), "SNAPSHOT_EMPTY")
    datasets.annotate(dataset, names[0], "van")
    first = datasets.snapshots.CreateSnapshot(
        CreateSnapshotRequest(parent=dataset, snapshot_id="a", snapshot=Snapshot())
    )
    same = datasets.snapshots.CreateSnapshot(
        CreateSnapshotRequest(parent=dataset, snapshot_id="b", snapshot=Snapshot())
    )
    assert first.digest == same.digest
    datasets.annotate(dataset, names[0], "car")
    datasets.add(dataset, a_medium(9))
    later = datasets.snapshots.CreateSnapshot(
        CreateSnapshotRequest(parent=dataset, snapshot_id="c", snapshot=Snapshot())
    )
    diff = datasets.snapshots.DiffSnapshots(DiffSnapshotsRequest(name=later.name, base=first.name))
    assert (diff.added_count, diff.removed_count, [one.item for one in diff.relabelled]) == (1, 0, [names[0]])
    other = DiffSnapshotsRequest(name=later.name, base=f"{PROJECT}/datasets/x/snapshots/a")
    refusal(InvalidArgument, lambda: datasets.snapshots.DiffSnapshots(other), "SNAPSHOTS_UNRELATED")
    refusal(
        AlreadyExists,
        lambda: datasets.snapshots.CreateSnapshot(
            CreateSnapshotRequest(parent=dataset, snapshot_id="a", snapshot=Snapshot())
        ),
        "RESOURCE_EXISTS",
    )


class WatchedObjects(ObjectStore):
    """An object store that counts the open transactions of the service during a put."""

    def __init__(self, objects: ObjectStore, postgres: Postgres) -> None:
        self._objects = objects
        self._postgres = postgres
        self.open_transactions: list[int] = []

    def put(self, folder: str, content: bytes | Path) -> ObjectRef:
        with self._postgres.connect(autocommit=True) as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'idle in transaction'",
                (f"vesta-{self._postgres.schema}",),
            ).fetchone()
        assert found is not None
        self.open_transactions.append(found["count"])
        return self._objects.put(folder, content)


def test_no_transaction_is_open_while_a_manifest_is_written(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))
    watched = WatchedObjects(datasets.objects, datasets.store.postgres)
    request = CreateSnapshotRequest(parent=dataset, snapshot=Snapshot(), request_id="once")
    SnapshotService(datasets.store, watched).CreateSnapshot(request, None)  # type: ignore[arg-type]
    with datasets.store.postgres.transaction() as connection:
        connection.execute("SELECT 1")
        watched.put("manifests", b"what the watch sees where one is open")
    assert watched.open_transactions == [0, 1]


def test_a_repeat_is_answered_with_the_first_snapshot_or_operation_though_what_it_was_made_of_is_gone(
    datasets: Datasets,
) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))
    layout, archive = ArchiveFormat.ARCHIVE_FORMAT_COCO, "archives/acme/vans.zip"
    datasets.objects.put_named(archive, a_zip({}))
    wanted = CreateSnapshotRequest(parent=dataset, snapshot=Snapshot(), request_id="once")
    snapshot = datasets.snapshots.CreateSnapshot(wanted)
    export = ExportDatasetRequest(name=dataset, format=layout, snapshot=snapshot.name, request_id="once")
    arrival = ImportDatasetRequest(name=dataset, format=layout, archive_key=archive, request_id="once")
    begun = datasets.datasets.ExportDataset(export), datasets.datasets.ImportDataset(arrival)
    datasets.objects.delete(archive)
    datasets.datasets.DeleteDataset(DeleteDatasetRequest(name=dataset))
    assert datasets.snapshots.CreateSnapshot(wanted) == snapshot
    assert (datasets.datasets.ExportDataset(export), datasets.datasets.ImportDataset(arrival)) == begun


def test_a_concept_in_use_is_retired_not_removed(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1), labels=("van",))
    taxonomy = f"{PROJECT}/taxonomies/vehicles"
    fewer = UpdateTaxonomyRequest(taxonomy=Taxonomy(name=taxonomy, concepts=[Concept(id="car")]))
    refusal(InvalidArgument, lambda: datasets.taxonomies.UpdateTaxonomy(fewer), "CONCEPT_IN_USE")
    refusal(
        FailedPrecondition,
        lambda: datasets.taxonomies.DeleteTaxonomy(DeleteTaxonomyRequest(name=taxonomy)),
        "TAXONOMY_IN_USE",
    )
    twice = Taxonomy(concepts=[Concept(id="a"), Concept(id="a")])
    refusal(
        InvalidArgument,
        lambda: datasets.taxonomies.CreateTaxonomy(CreateTaxonomyRequest(parent=PROJECT, taxonomy=twice)),
        "TAXONOMY_INVALID",
    )
    assert item.name


def test_a_dataset_that_does_not_say_gets_a_test_side(datasets: Datasets) -> None:
    dataset = datasets.a_dataset(split_policy=None)
    policy = datasets.datasets.GetDataset(GetDatasetRequest(name=dataset)).split_policy
    assert policy == SplitPolicy(validation_share=0, test_share=0.2)
    sides = [one.split for one in datasets.add(dataset, *map(a_medium, range(200)))]
    assert 20 < sides.count(Split.SPLIT_TEST) < 60
    assert sides.count(Split.SPLIT_VALIDATION) == 0
    assert datasets.counts(dataset).test_item_count == sides.count(Split.SPLIT_TEST)


def test_shares_that_are_asked_for_are_honoured_and_told(datasets: Datasets) -> None:
    none = SplitPolicy(test_share=0.0)
    dataset = datasets.a_dataset("none", split_policy=none)
    answered = datasets.datasets.GetDataset(GetDatasetRequest(name=dataset)).split_policy
    assert (answered, answered.HasField("test_share")) == (none, True)
    assert {one.split for one in datasets.add(dataset, *map(a_medium, range(50)))} == {Split.SPLIT_TRAIN}
    half = datasets.a_dataset("half", split_policy=SplitPolicy(validation_share=0.5))
    answered = datasets.datasets.GetDataset(GetDatasetRequest(name=half)).split_policy
    assert (answered.validation_share, answered.test_share) == (0.5, 0.2)


def test_a_dataset_that_is_older_than_the_default_keeps_its_sides(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    body = Dataset(taxonomy=f"{PROJECT}/taxonomies/vehicles").SerializeToString()
    with datasets.store.postgres.transaction() as connection:
        connection.execute("UPDATE datasets SET body = %s", (body,))
    assert {one.split for one in datasets.add(dataset, *map(a_medium, range(50)))} == {Split.SPLIT_TRAIN}
    assert datasets.datasets.GetDataset(GetDatasetRequest(name=dataset)).split_policy.HasField("test_share")


def test_shares_that_leave_nothing_to_learn_from_are_refused(datasets: Datasets) -> None:
    policy = SplitPolicy(test_share=0.6, validation_share=0.4)
    refusal(InvalidArgument, lambda: datasets.a_dataset(split_policy=policy), "SPLIT_POLICY_INVALID")
    lost = Dataset(taxonomy=f"{PROJECT}/taxonomies/none")
    refusal(
        NotFound,
        lambda: datasets.datasets.CreateDataset(CreateDatasetRequest(parent=PROJECT, dataset=lost)),
        "RESOURCE_NOT_FOUND",
    )


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


def test_archives_are_zip_files_of_the_own_project(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    body = UploadArchiveRequest(parent=PROJECT, file=httpbody_pb2.HttpBody(data=b"no zip"))
    refusal(InvalidArgument, lambda: datasets.archives.UploadArchive(iter([body])), "ARCHIVE_NOT_ZIP")
    foreign = ImportDatasetRequest(
        name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_COCO, archive_key="archives/other/x.zip"
    )
    refusal(InvalidArgument, lambda: datasets.datasets.ImportDataset(foreign), "ARCHIVE_NOT_FOUND")
    missing = GetDatasetRequest(name=f"{PROJECT}/datasets/none")
    refusal(NotFound, lambda: datasets.datasets.GetDataset(missing), "RESOURCE_NOT_FOUND")
