"""Statistics of snapshots are consistent, and differences list the changes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_contracts.common.v1 import Annotation, PixelBox
from vesta_contracts.datasets.v1 import AnnotationList, Relabelling, SnapshotDiff
from vesta_datasets.items.splits import Shares, Split
from vesta_datasets.snapshots.differences import DIFF_NAMES_MAX, diff
from vesta_datasets.snapshots.manifest import ManifestRow
from vesta_datasets.snapshots.statistics import statistics, total

SHARES = Shares(0.0, 0.2)


def a_row(
    name, labels=("van",), split="TRAIN", width_px=640, height_px=480, reviewed=False, control=False, accepted=False
):
    return ManifestRow(
        name=name,
        sha256="ab" * 32,
        object_key="media/x",
        mime_type="image/jpeg",
        width_px=width_px,
        height_px=height_px,
        split=split,
        labels=labels,
        reviewed=reviewed,
        control=control,
        accept_time=datetime(2026, 3, 1, tzinfo=UTC) if accepted or labels is not None else None,
    )


def test_an_empty_snapshot_has_statistics():
    figures = statistics([], SHARES)
    assert figures.imbalance is None
    assert {side.item_count for side in figures.splits.values()} == {0}


def test_each_split_counts_its_items_labels_and_concepts():
    rows = [
        a_row("1", ("van",)),
        a_row("2", ("van", "red")),
        a_row("3", None),
        a_row("4", (), "TEST"),
        a_row("5", ("red",), "TEST", reviewed=True, control=True),
    ]
    figures = statistics(rows, SHARES)
    train, test = figures.splits[Split.TRAIN], figures.splits[Split.TEST]
    assert (train.item_count, train.labelled_count, train.concept_counts) == (3, 2, {"van": 2, "red": 1})
    assert (test.item_count, test.labelled_count, test.concept_counts) == (2, 2, {"red": 1})
    assert (figures.reviewed_count, figures.control_count) == (1, 1)


def test_the_objects_of_the_control_arm_are_counted():
    boxes = AnnotationList(annotations=[Annotation(concept="van", box=PixelBox(x_max_px=2, y_max_px=2))] * 3)
    rows = [
        replace(a_row(name, control=control), annotations=boxes.SerializeToString())
        for name, control in (("1", True), ("2", True), ("3", False))
    ]
    assert total([statistics(rows[:2], SHARES), statistics(rows[2:], SHARES)]).control_object_count == 6


def test_each_split_counts_the_items_that_a_classification_excludes():
    rows = [a_row("1"), a_row("2", ()), a_row("3", ("red", "van")), a_row("4", None, accepted=True), a_row("5", None)]
    train = statistics(rows, SHARES).splits[Split.TRAIN]
    assert (train.item_count, train.labelled_count) == (5, 3)
    assert (train.no_label_count, train.multiple_labels_count, train.shapes_only_count) == (1, 1, 1)


def test_each_split_counts_the_items_that_the_policy_assigned():
    low, high = "00" * 32, "ff" * 32  # the first fifth of all hashes is in the test split
    rows = [
        replace(a_row("1"), sha256=high),
        replace(a_row("2"), sha256=low),
        replace(a_row("3", split="TEST"), sha256=low),
        replace(a_row("4", split="TEST"), sha256=high),
    ]
    for shares, train, test in ((SHARES, 1, 1), (Shares(0.0, 0.0), 2, 0)):
        splits = statistics(rows, shares).splits
        assert (splits[Split.TRAIN].hash_assigned_count, splits[Split.TEST].hash_assigned_count) == (train, test)


def test_imbalance_is_the_ratio_of_the_most_to_the_least_frequent_training_concept():
    rows = [a_row(str(n)) for n in range(6)] + [a_row("a", ("bus",)), a_row("b", ("bus",)), a_row("c", ("ox",), "TEST")]
    assert statistics(rows, SHARES).imbalance == pytest.approx(3.0)


Labelled = tuple[str, list[str] | None]


def diff_of(before: Sequence[Labelled], after: Sequence[Labelled], batch_rows: int = 3000) -> SnapshotDiff:
    """Compares items that are read in batches."""
    return diff(
        *([batch_of(rows[at : at + batch_rows]) for at in range(0, len(rows), batch_rows)] for rows in (before, after))
    )


def batch_of(rows: Sequence[Labelled]) -> pa.RecordBatch:
    columns = [[name for name, _ in rows], [labels for _, labels in rows]]
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[0], pa.string()), pa.array(columns[1], pa.list_(pa.string()))], ["name", "labels"]
    )


def test_a_diff_lists_added_removed_and_relabelled_items():
    before = [("a", ["van"]), ("b", ["van"]), ("c", None), ("d", ["x", "y"])]
    after = [("b", ["bus"]), ("c", []), ("d", ["y", "x"]), ("e", ["van"])]
    assert diff_of(before, after) == SnapshotDiff(
        added_count=1,
        removed_count=1,
        relabelled_count=2,
        added=["e"],
        removed=["a"],
        relabelled=[Relabelling(item="b", labels_before=["van"], labels_after=["bus"]), Relabelling(item="c")],
    )


def test_nothing_changes_between_a_snapshot_and_itself():
    rows = [("a", ["van"]), ("b", None)]
    assert diff_of(rows, rows) == SnapshotDiff()


def test_a_difference_counts_all_items_and_lists_the_first():
    rows = [(f"{number:05}", ["van"]) for number in range(DIFF_NAMES_MAX + 5)]
    for added in (diff_of([], rows), diff_of(rows, [])):
        listed, count = (added.added, added.added_count) if added.added else (added.removed, added.removed_count)
        assert (list(listed), count) == ([name for name, _ in rows[:DIFF_NAMES_MAX]], len(rows))


LABELS = st.none() | st.lists(st.sampled_from("abc"), max_size=3, unique=True)
ITEMS = st.dictionaries(st.sampled_from([f"{number:02}" for number in range(20)]), LABELS)


@given(before=ITEMS, after=ITEMS, batch_rows=st.integers(1, 7))
def test_a_diff_in_batches_equals_the_comparison_of_all_items(
    before: dict[str, list[str] | None], after: dict[str, list[str] | None], batch_rows: int
) -> None:
    found = diff_of(sorted(before.items()), sorted(after.items()), batch_rows)
    both = sorted(before.keys() & after.keys())
    relabelled = [name for name in both if _as_set(before[name]) != _as_set(after[name])]
    assert list(found.added) == sorted(after.keys() - before.keys())
    assert list(found.removed) == sorted(before.keys() - after.keys())
    assert [one.item for one in found.relabelled] == relabelled
    assert (found.added_count, found.removed_count, found.relabelled_count) == (
        len(found.added),
        len(found.removed),
        len(relabelled),
    )
    for one in found.relabelled:
        assert list(one.labels_before) == (before[one.item] or [])
        assert list(one.labels_after) == (after[one.item] or [])


def _as_set(labels: list[str] | None) -> frozenset[str] | None:
    return None if labels is None else frozenset(labels)


def test_statistics_of_parts_add_up():
    kinds = [("van",), ("bus", "ox"), (), None]
    rows = [a_row(str(n), kinds[n % 4], "TEST" if n % 3 else "TRAIN", reviewed=n < 4, control=n < 2) for n in range(9)]
    parts = [statistics(part, SHARES) for part in (rows[:2], rows[2:7], rows[7:], [])]
    assert total(parts) == statistics(rows, SHARES)
    assert total(parts).annotated_count == 7
