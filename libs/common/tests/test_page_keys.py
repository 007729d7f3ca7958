"""Lists keyed by name or age give every resource once, whatever the size of their pages."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.errors import InvalidArgument
from vesta_common.resources.page_keys import by_age, by_name, newest_before
from vesta_common.resources.pages import Page, read_page
from vesta_contracts.datasets.v1 import ListSnapshotsRequest, Snapshot

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def a_snapshot(number: int) -> Snapshot:
    """Two of a kind were made in the same microsecond."""
    snapshot = Snapshot(name=f"projects/acme/datasets/vans/snapshots/s{number:03}")
    snapshot.create_time.FromDatetime(NOON + timedelta(microseconds=number // 2))
    return snapshot


def age_of(snapshot: Snapshot) -> tuple[datetime, str]:
    return snapshot.create_time.ToDatetime(UTC), snapshot.name


@given(count=st.integers(0, 12), size=st.integers(1, 5))
def test_pages_by_age_give_the_newest_first_and_everything_once(count: int, size: int) -> None:
    everything = sorted((a_snapshot(number) for number in range(count)), key=age_of, reverse=True)
    seen: list[Snapshot] = []
    token = "first"
    while token:
        page = read_page(ListSnapshotsRequest(page_size=size, page_token=token if seen else ""))
        older = [snapshot for snapshot in everything if age_of(snapshot) < newest_before(page)]
        kept, token = page.cut(older[: page.limit], by_age)
        seen += kept
    assert seen == everything


@pytest.mark.parametrize("cursor", [("yesterday", "name"), ("2026-05-04",), ("2026-05-04", "name", "more")])
def test_a_page_by_age_that_somebody_changed_is_refused(cursor: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        newest_before(Page(2, cursor, "question"))
    assert refused.value.reason == "PAGE_TOKEN_INVALID"


def test_a_page_by_name_goes_on_after_the_last_name() -> None:
    snapshots = [a_snapshot(number) for number in range(3)]
    _, token = read_page(ListSnapshotsRequest(page_size=2)).cut(snapshots, by_name)
    assert read_page(ListSnapshotsRequest(page_size=2, page_token=token)).after == snapshots[1].name
