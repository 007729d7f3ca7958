"""The policy for load, as tables; and the ids of observations, which sort by frame time."""

from datetime import UTC, datetime, timedelta

import pytest
from pipelining_builders import a_frame
from vesta_common.backoff import exponential_backoff
from vesta_contracts.pipelining.v1 import Pipeline
from vesta_pipelining.frames import batches, lag, observation_id
from vesta_pipelining.load_shedding import (
    BACKOFF_FIRST,
    BACKOFF_MAX,
    Window,
    admit,
    age_max,
    is_ahead,
    is_too_old,
    uncertain_per_minute_max,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
STREAM = "projects/acme/pipelines/yard/streams/door"


@pytest.mark.parametrize(("age", "dropped"), [(0, False), (10, False), (10.001, True), (-30, False)])
def test_frames_older_than_the_maximum_are_dropped(age: float, dropped: bool) -> None:
    assert is_too_old(NOW - timedelta(seconds=age), NOW, timedelta(seconds=10)) is dropped


def test_a_clock_may_be_a_minute_ahead_and_lag_is_never_negative() -> None:
    assert not is_ahead(NOW + timedelta(seconds=60), NOW)
    assert is_ahead(NOW + timedelta(seconds=61), NOW)
    assert lag(NOW + timedelta(seconds=5), NOW) == timedelta()


def test_unset_fields_have_default_values() -> None:
    assert (age_max(Pipeline()), uncertain_per_minute_max(Pipeline())) == (timedelta(seconds=10), 60)


def test_a_budget_is_restored_after_a_minute() -> None:
    window: Window | None = Window(NOW, 0)
    for _ in range(3):
        assert window
        window = admit(window, NOW, 3)
    assert window == Window(NOW, 3)
    assert window
    assert admit(window, NOW + timedelta(seconds=59), 3) is None
    assert admit(window, NOW + timedelta(seconds=60), 3) == Window(NOW + timedelta(seconds=60), 1)


def test_the_backoff_doubles_up_to_a_minute() -> None:
    delays = [exponential_backoff(attempt, BACKOFF_FIRST, BACKOFF_MAX) for attempt in (1, 2, 3, 100)]
    assert [delay.total_seconds() for delay in delays] == [0.5, 1, 2, 60]


def test_ids_sort_by_frame_time_and_derive_from_the_event() -> None:
    ids = [observation_id(STREAM, f"{9 - number}", NOW + timedelta(milliseconds=number)) for number in range(9)]
    assert ids == sorted(ids)
    assert ids[0] == observation_id(STREAM, "9", NOW) != observation_id(STREAM + "2", "9", NOW)
    assert len(ids[0]) == 26


def test_frames_are_batched_up_to_a_number_and_a_size() -> None:
    assert list(batches([], 4)) == []
    frames = [a_frame(STREAM, data=b"x" * 10) for _ in range(5)]
    assert [len(run) for run in batches(frames, 2)] == [2, 2, 1]
    assert [len(run) for run in batches(frames, 9, bytes_max=25)] == [2, 2, 1]
    assert [len(run) for run in batches(frames, 9, bytes_max=1)] == [1] * 5
