"""Uncertain frames: one worker at a time uploads a frame, and a late one changes nothing."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from pipelining_builders import DEPLOYMENT, PIPELINE, PROJECT, SOURCE
from vesta_common.clock import ManualClock
from vesta_common.leases import LeaseLost
from vesta_common.storage.postgres import Postgres
from vesta_contracts.pipelining.v1 import ModelStep, Observation, Pipeline, Step, Stream
from vesta_pipelining.store import Store
from vesta_pipelining.store.uncertain_frames import LEASE_DURATION, UncertainFrame

STREAM = f"{PIPELINE}/streams/door"
ITEM = f"{PROJECT}/datasets/vans/items/1"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(postgres_url: str, postgres_schema: str, clock: ManualClock) -> Iterator[Store]:
    """A store with three uncertain frames of one stream."""
    postgres = Postgres(postgres_url, postgres_schema).open()
    postgres.migrate("vesta_pipelining")
    store = Store(postgres, clock)
    observations = [Observation(name=f"{STREAM}/observations/{number}") for number in range(3)]
    with postgres.transaction() as connection:
        step = Step(model=ModelStep(deployment=DEPLOYMENT))
        store.insert_pipeline(connection, Pipeline(name=PIPELINE, steps=[step], uncertain_source=SOURCE))
        store.insert_stream(connection, Stream(name=STREAM))
        store.insert_observations(connection, observations)
    for observation in observations:
        frame = {"observation": observation.name, "stream": STREAM, "source": SOURCE, "event_id": "e"}
        with postgres.transaction() as connection:
            fields = {"data": b"jpeg", "content_type": "image/jpeg", "frame_time": clock.now()}
            store.uncertain_frames.insert(connection, [{**frame, **fields}])
        clock.advance(timedelta(seconds=1))
    yield store
    postgres.close()


def claim(store: Store) -> UncertainFrame:
    frame = store.uncertain_frames.claim()
    assert frame is not None
    return frame


def test_frames_are_claimed_in_order_of_waiting_time(store: Store, clock: ManualClock) -> None:
    frames = [claim(store) for _ in range(3)]
    assert [frame.observation[-1] for frame in frames] == ["0", "1", "2"]
    assert store.uncertain_frames.claim() is None
    store.uncertain_frames.postpone(frames[0], clock.now() + timedelta(seconds=9))
    store.uncertain_frames.postpone(frames[2], clock.now() + timedelta(seconds=8))
    clock.advance(timedelta(seconds=9))
    assert [claim(store).observation[-1] for _ in range(2)] == ["2", "0"]
    assert store.uncertain_frames.claim() is None


def test_a_worker_whose_lease_expired_changes_nothing(store: Store, clock: ManualClock) -> None:
    late, *_ = (claim(store) for _ in range(3))
    clock.advance(LEASE_DURATION)
    current = claim(store)
    assert (current.observation, current.attempt_count) == (late.observation, 2)

    store.uncertain_frames.postpone(late, clock.now())
    with pytest.raises(LeaseLost):
        store.uncertain_frames.finish(late, "")
    store.uncertain_frames.finish(current, ITEM)
    with pytest.raises(LeaseLost):
        store.uncertain_frames.finish(current, ITEM)

    with store.postgres.transaction() as connection:
        stream = store.get_stream(connection, STREAM)
        observation = store.get_observation(connection, current.observation)
    assert (stream.uncertain_count, observation.item) == (1, ITEM)
