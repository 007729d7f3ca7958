"""Classification uses image labels: an item with shapes only is not labelled, and counts show the items that are left out."""

import pytest
from datasets_builders import PROJECT, Datasets, a_medium, refusal, says
from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_common.events.cloudevents import new_event
from vesta_common.storage.postgres import Postgres, migrations_of
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.common.v1 import Annotation, PixelBox, TaskType
from vesta_contracts.datasets.v1 import (
    AcceptedAnnotations,
    BatchAnnotateItemsRequest,
    Concept,
    CreateSnapshotRequest,
    GetItemRequest,
    ItemAnnotations,
    SelectionStrategy,
    SelectItemsRequest,
    Snapshot,
    Split,
    Taxonomy,
    UpdateTaxonomyRequest,
)

BOX = Annotation(concept="van", box=PixelBox(x_min_px=1, y_min_px=1, x_max_px=9, y_max_px=9))


@pytest.fixture
def items(datasets: Datasets) -> tuple[str, list[str]]:
    """A dataset with five training items: a box, none of the concepts, a label and a box, a label, no annotations."""
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(5)), split=Split.SPLIT_TRAIN)]
    told: list[list[Annotation]] = [[BOX], [], [*says("car"), BOX], says("van")]
    annotate(datasets, dataset, dict(zip(names[:4], told, strict=True)))
    return dataset, names


def annotate(datasets: Datasets, dataset: str, told: dict[str, list[Annotation]]) -> None:
    entries = [ItemAnnotations(item=item, annotations=annotations) for item, annotations in told.items()]
    datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=entries))


def answered(datasets: Datasets, item: str, annotations: list[Annotation]) -> list[Annotation]:
    """Returns the accepted annotations of an item after an answer to a task."""
    told = TaskAccepted(task="t", item=item, annotations=annotations, annotators=["ada"])
    told.accept_time.FromDatetime(datasets.store.clock.now())
    datasets.handle(new_event("annotation", "t", told, datasets.store.clock.now()))
    return list(datasets.items.GetItem(GetItemRequest(name=item)).accepted.annotations)


def test_an_item_with_shapes_alone_is_annotated_and_not_labelled(
    datasets: Datasets, items: tuple[str, list[str]]
) -> None:
    dataset, _ = items
    counts = datasets.counts(dataset)
    assert (counts.annotated_count, counts.labelled_count, counts.train_labelled_count) == (4, 3, 3)
    assert (counts.pool_count, counts.test_item_count) == (2, 0)


@pytest.mark.parametrize(
    ("filter_text", "found"),
    [
        ("labelled", [1, 2, 3]),
        ("NOT labelled", [0, 4]),
        ("annotated AND NOT labelled", [0]),
        ("label = van", [3]),
        ("label = car", [2]),
        ("NOT label = van", [0, 1, 2, 4]),
        ("concept = van", [0, 2, 3]),
        ("NOT concept = van", [1, 4]),
    ],
)
def test_filters_distinguish_image_labels_from_shapes(
    datasets: Datasets, items: tuple[str, list[str]], filter_text: str, found: list[int]
) -> None:
    dataset, names = items
    assert datasets.listed(dataset, filter_text) == [names[index] for index in found]


def test_selection_includes_items_with_shapes_alone(datasets: Datasets, items: tuple[str, list[str]]) -> None:
    dataset, names = items
    request = SelectItemsRequest(parent=dataset, count=9, strategy=SelectionStrategy.SELECTION_STRATEGY_RANDOM)
    selected = datasets.items.SelectItems(request)
    assert {one.item for one in selected.items} == {names[0], names[4]}
    assert selected.pool_count == 2


def test_a_snapshot_counts_the_items_that_a_classification_excludes(
    datasets: Datasets, items: tuple[str, list[str]]
) -> None:
    dataset, _ = items
    request = CreateSnapshotRequest(parent=dataset, snapshot=Snapshot())
    snapshot = datasets.snapshots.CreateSnapshot(request)
    train = next(side for side in snapshot.statistics.splits if side.split == "TRAIN")
    assert dict(train.concept_counts) == {"car": 1, "van": 1}
    assert (train.item_count, train.labelled_count) == (5, 3)
    assert (train.no_label_count, train.multiple_labels_count, train.shapes_only_count) == (1, 0, 1)


def test_several_labels_are_counted(datasets: Datasets) -> None:
    dataset = datasets.a_dataset(task_type=TaskType.TASK_TYPE_MULTI_LABEL)
    datasets.add(dataset, a_medium(1), labels=("van", "car"), split=Split.SPLIT_TRAIN)
    snapshot = datasets.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    assert snapshot.statistics.splits[0].multiple_labels_count == 1


def test_a_snapshot_of_shapes_alone_has_no_imbalance(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1), split=Split.SPLIT_TRAIN)
    request = CreateSnapshotRequest(parent=dataset, snapshot=Snapshot())
    refusal(FailedPrecondition, lambda: datasets.snapshots.CreateSnapshot(request), "SNAPSHOT_EMPTY")
    annotate(datasets, dataset, {item.name: [BOX]})
    snapshot = datasets.snapshots.CreateSnapshot(request)
    assert (snapshot.item_count, snapshot.statistics.HasField("imbalance")) == (1, False)


def test_a_concept_of_shapes_alone_is_in_use(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    annotate(datasets, dataset, {item.name: [BOX]})
    fewer = Taxonomy(name=f"{PROJECT}/taxonomies/vehicles", concepts=[Concept(id="car")])
    refusal(
        InvalidArgument,
        lambda: datasets.taxonomies.UpdateTaxonomy(UpdateTaxonomyRequest(taxonomy=fewer)),
        "CONCEPT_IN_USE",
    )


def test_an_answer_about_the_whole_image_keeps_the_accepted_shapes(
    datasets: Datasets, items: tuple[str, list[str]]
) -> None:
    dataset, names = items
    assert answered(datasets, names[0], says("car")) == [*says("car"), BOX]
    assert datasets.listed(dataset, "labelled AND label = car AND concept = van") == [names[0], names[2]]


@pytest.mark.parametrize("answer", [[], [Annotation(concept="car", box=BOX.box)], [*says("car"), BOX]])
def test_any_other_answer_replaces_the_accepted_annotations(
    datasets: Datasets, items: tuple[str, list[str]], answer: list[Annotation]
) -> None:
    assert answered(datasets, items[1][0], answer) == answer


@pytest.mark.parametrize(
    ("annotations", "labels", "shape_concepts", "labelled"),
    [
        ([BOX], [], ["van"], False),
        ([BOX, *says("car", "van")], ["car", "van"], ["van"], True),
        (says("van"), ["van"], [], True),
        ([], [], [], True),
    ],
)
def test_existing_items_are_classified_by_their_accepted_annotations(
    postgres_url: str,
    postgres_schema: str,
    annotations: list[Annotation],
    labels: list[str],
    shape_concepts: list[str],
    labelled: bool,
) -> None:
    accepted = AcceptedAnnotations(
        annotations=annotations, annotators=["a" * 300], reviewed=True, task="t", control=True
    )
    accepted.accept_time.GetCurrentTime()
    for one in accepted.annotations:
        one.score = 0.5
        one.attributes["occluded"] = "true"
    concepts = sorted({one.concept for one in annotations})
    postgres = Postgres(postgres_url, postgres_schema).open()
    with postgres.connect() as connection:
        connection.execute(f"CREATE SCHEMA {postgres_schema}".encode())
        for name, statements in migrations_of("vesta_datasets"):
            if name.endswith("_image_labels.sql"):
                connection.execute("INSERT INTO taxonomies VALUES ('t', 'p', '', now(), now())")
                connection.execute(
                    "INSERT INTO datasets (name, parent, taxonomy, body, create_time, update_time) "
                    "VALUES ('d', 'p', 't', '', now(), now())"
                )
                connection.execute(_INSERT, {"accepted": accepted.SerializeToString(), "labels": concepts})
            connection.execute(statements.encode())
        row = connection.execute("SELECT labels, shape_concepts, labelled FROM items").fetchone()
    postgres.close()
    assert row == {"labels": labels, "shape_concepts": shape_concepts, "labelled": labelled}


_INSERT = """
INSERT INTO items (name, dataset, sha256, media, file_name, source, metadata, split, group_name, duplicate_of, straddles,
    perceptual_hash, bands, accepted, labels, create_time, update_time)
VALUES ('i', 'd', 'x', '', '', '', '{}', 'TRAIN', 'i', '', false, 0, '{}', %(accepted)s, %(labels)s, now(), now())
"""
