"""Parts of manifests are read as they were written. Their boundaries and digests depend on the rows alone."""

import random
from bisect import bisect_left
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vesta_common.manifests import Part, read_file
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.datasets.v1 import AnnotationList
from vesta_datasets.items.splits import Shares
from vesta_datasets.snapshots.manifest import (
    COLUMNS,
    ManifestRow,
    digest_of_parts,
    digest_of_rows,
    rows_of,
    table_of,
)
from vesta_datasets.snapshots.parts import PART_LIMITS, PartLimits, cut, revise, write_part
from vesta_datasets.snapshots.statistics import Statistics, statistics

NOON = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


def stored_annotations(concepts: list[str]) -> bytes:
    return AnnotationList(annotations=[Annotation(concept=concept) for concept in concepts]).SerializeToString()


def a_row(name="projects/acme/datasets/vans/items/01", **changes):
    row = ManifestRow(
        name=name,
        sha256="ab" * 32,
        object_key="media/" + "ab" * 32,
        mime_type="image/jpeg",
        width_px=640,
        height_px=480,
        split="TRAIN",
        labels=("van",),
        annotations=b"\x0a\x05\x0a\x03van",
        annotators=("projects/acme/members/ada",),
        reviewer="projects/acme/members/bob",
        reviewed=True,
        control=False,
        task="projects/acme/campaigns/c/tasks/t",
        model_version="projects/acme/models/vans/versions/3",
        accept_time=NOON,
    )
    return replace(row, **changes)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
moments = st.integers(0, 2**52).map(
    lambda count_us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=count_us)
)
rows = st.lists(
    st.builds(
        ManifestRow,
        name=text.filter(bool),
        sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
        object_key=text,
        mime_type=text,
        width_px=st.integers(0, 2**31 - 1),
        height_px=st.integers(0, 2**31 - 1),
        split=st.sampled_from(["TRAIN", "VALIDATION", "TEST"]),
        labels=st.none() | st.lists(text, max_size=3).map(tuple),
        annotations=st.lists(text, max_size=3).map(stored_annotations),
        annotators=st.lists(text, max_size=2).map(tuple),
        reviewer=text,
        reviewed=st.booleans(),
        control=st.booleans(),
        task=text,
        model_version=text,
        accept_time=st.none() | moments,
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row.name,
)


SHARES = Shares(0.0, 0.2)


def digest(found, limits=PART_LIMITS):
    """Returns the digest of a snapshot of these rows."""
    parts = cut(sorted(found, key=lambda row: row.name), limits)
    return digest_of_parts(digest_of_rows(table_of(part)) for part in parts)


def read(path):
    return [row for batch in read_file(path, COLUMNS, "key") for row in rows_of(batch.to_pydict())]


@settings(deadline=None)
@given(rows)
def test_a_part_is_read_as_it_was_written(written):
    ordered = sorted(written, key=lambda row: row.name)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "part"
        part = write_part(ordered, SHARES, path)
        assert read(path) == ordered
        assert part.digest == digest_of_rows(pq.read_table(path)) == digest_of_rows(table_of(ordered))
    assert (part.first_item, part.last_item, part.item_count) == (ordered[0].name, ordered[-1].name, len(ordered))
    assert Statistics.of_dict(part.statistics) == statistics(ordered, SHARES)


@settings(deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_digest(written, chance):
    shuffled = random.Random(chance.random()).sample(written, len(written))
    limits = PartLimits(rows_mean=3)
    assert digest(shuffled, limits) == digest(written, limits)


@pytest.mark.parametrize("field", [field.name for field in fields(ManifestRow)])
def test_every_field_is_part_of_the_digest(field):
    other = {
        "width_px": 1,
        "height_px": 1,
        "labels": None,
        "annotations": b"",
        "annotators": (),
        "reviewed": False,
        "control": True,
        "accept_time": None,
    }
    assert digest([a_row()]) != digest([a_row(**{field: other.get(field, "other")})])


def test_unlabelled_differs_from_none_of_the_concepts():
    assert digest([a_row(labels=None)]) != digest([a_row(labels=())])


def test_the_time_zone_does_not_change_the_digest():
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5)))
    assert digest([a_row(accept_time=elsewhere)]) == digest([a_row()])


def test_the_digest_of_existing_rows_never_changes():
    assert (
        digest([a_row("b"), a_row("a", labels=None)])
        == "6e3aeed060f7e43f3ede327ad5ae71d7197d9c65cc39126eece4be7c9f00c5d3"
    )


def test_an_empty_snapshot_has_no_part():
    assert list(cut([], PART_LIMITS)) == []


@pytest.mark.parametrize("names", [("a", "a"), ("b", "a")])
def test_an_item_cannot_be_in_a_snapshot_twice(names):
    with pytest.raises(ValueError, match="each item once"):
        list(cut(map(a_row, names), PART_LIMITS))


def test_parts_have_a_limited_number_of_rows_and_bytes():
    limits = PartLimits(rows_mean=2**32, rows_max=4, annotation_bytes_max=10)
    parts = list(cut((a_row(f"{number:02}", annotations=b"") for number in range(10)), limits))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [len(part) for part in cut((a_row(str(number), annotations=b"12345") for number in range(5)), limits)] == [
        2,
        2,
        1,
    ]


changes = st.dictionaries(st.integers(0, 60), st.sampled_from(["added", "deleted", "relabelled"]), max_size=6)


@settings(deadline=None)
@given(st.sets(st.integers(0, 60)), changes, st.sampled_from([1, 2, 4, 2**32]), st.integers(2, 9))
def test_a_revision_has_the_parts_of_a_new_snapshot_and_reads_only_changed_ones(numbers, changed, rows_mean, rows_max):
    limits = PartLimits(rows_mean, rows_max)
    before = {number: a_row(f"{number:02}") for number in numbers}
    after = dict(before)
    for number, change in changed.items():
        if change == "deleted":
            after.pop(number, None)
        elif change == "added" or number in after:
            after[number] = a_row(f"{number:02}", labels=("car",))

    def part_of(found):
        if isinstance(found, Part):
            return found
        return Part("", digest_of_rows(table_of(found)), found[0].name, found[-1].name, len(found))

    def current(after_name):
        return (after[number] for number in sorted(after) if after[number].name > after_name)

    old = [part_of(found) for found in cut((before[number] for number in sorted(before)), limits)]
    lasts = [part.last_item for part in old]
    touched = {min(bisect_left(lasts, f"{number:02}"), len(old) - 1) for number in changed}
    revised = list(revise(old, touched, current, limits))
    whole = list(cut(current(""), limits))
    assert [part_of(found) for found in revised] == [part_of(found) for found in whole]
    if old and not touched:
        assert revised == old


def test_a_change_of_one_item_reads_one_part():
    rows = {f"{number:04}": a_row(f"{number:04}") for number in range(1000)}
    limits = PartLimits(rows_mean=20)
    with TemporaryDirectory() as folder:
        old = [write_part(found, SHARES, Path(folder) / "part") for found in cut(rows.values(), limits)]
    read_names = []

    def current(after):
        for name, row in rows.items():
            if name > after:
                read_names.append(name)
                yield row

    middle = len(old) // 2
    revised = list(revise(old, {middle}, current, limits))
    assert [index for index, found in enumerate(revised) if not isinstance(found, Part)] == [middle]
    assert len(read_names) == old[middle].item_count


def test_a_part_is_written_before_the_rows_after_it_are_read():
    read_count = written_count = 0

    def current(after):
        nonlocal read_count
        for number in range(200):
            read_count += 1
            yield a_row(f"{number:03}")

    for part in revise([], set(), current, PartLimits(rows_mean=5)):
        written_count += len(part)
        assert read_count == written_count
    assert written_count == 200
