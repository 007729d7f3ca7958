"""Manifests are read as they were written. The digest depends on the content and not on the row order."""

import io
import random
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vesta_datasets.snapshots.manifest import DamagedManifestError, ManifestRow, digest, read_manifest, write_manifest

NOON = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


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
        name=text,
        sha256=text,
        object_key=text,
        mime_type=text,
        width_px=st.integers(0, 2**31 - 1),
        height_px=st.integers(0, 2**31 - 1),
        split=st.sampled_from(["TRAIN", "VALIDATION", "TEST"]),
        labels=st.none() | st.lists(text, max_size=3).map(tuple),
        annotations=st.binary(max_size=20),
        annotators=st.lists(text, max_size=2).map(tuple),
        reviewer=text,
        reviewed=st.booleans(),
        control=st.booleans(),
        task=text,
        model_version=text,
        accept_time=st.none() | moments,
    ),
    max_size=6,
    unique_by=lambda row: row.name,
)


@settings(deadline=None)
@given(rows)
def test_a_manifest_is_read_as_written_sorted_by_name(written):
    assert read_manifest(write_manifest(written)) == sorted(written, key=lambda row: row.name)


@settings(deadline=None)
@given(rows, st.randoms())
def test_row_order_changes_neither_bytes_nor_digest(written, chance):
    shuffled = random.Random(chance.random()).sample(written, len(written))
    assert write_manifest(shuffled) == write_manifest(written)
    assert digest(shuffled) == digest(written)


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
        == "dc30141971d289c294a1468b01fbd47062a033e369cdae0c85167e87d43ec266"
    )


def test_an_empty_snapshot_has_a_manifest():
    assert read_manifest(write_manifest([])) == []


def test_an_item_cannot_be_in_a_snapshot_twice():
    with pytest.raises(ValueError, match="each item once"):
        write_manifest([a_row("a"), a_row("a")])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_bytes_that_are_no_manifest_are_rejected(content):
    with pytest.raises(DamagedManifestError, match="cannot be read"):
        read_manifest(content)


def test_a_manifest_with_changed_rows_is_rejected():
    table = pq.read_table(io.BytesIO(write_manifest([a_row("a"), a_row("b")])))
    sink = io.BytesIO()
    pq.write_table(table.slice(0, 1), sink)
    with pytest.raises(DamagedManifestError, match="digest"):
        read_manifest(sink.getvalue())


def test_another_parquet_file_is_rejected():
    sink = io.BytesIO()
    pq.write_table(pa.table({"name": ["a"]}), sink)
    with pytest.raises(DamagedManifestError, match="format"):
        read_manifest(sink.getvalue())
