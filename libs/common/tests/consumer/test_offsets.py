"""What may be committed, through rebalances of every kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from vesta_common.events.consumer.offsets import Offsets

A, B, C = (TopicPartition("task", number) for number in range(3))


def delivered(**offsets: int) -> Offsets:
    found = Offsets()
    for name, offset in offsets.items():
        found.deliver({"a": A, "b": B, "c": C}[name], offset)
    return found


def test_nothing_is_to_be_committed_before_something_was_delivered() -> None:
    assert Offsets().uncommitted() == {}


def test_the_furthest_of_each_partition_is_to_be_committed_once() -> None:
    offsets = delivered(a=3, b=7)
    offsets.deliver(A, 5)
    assert offsets.uncommitted() == {A: 5, B: 7}
    offsets.commit({A: 5, B: 7})
    assert offsets.uncommitted() == {}


def test_what_is_delivered_while_a_commit_is_under_way_is_committed_with_the_next() -> None:
    offsets = delivered(a=3)
    sent = offsets.uncommitted()
    offsets.deliver(A, 4)
    offsets.commit(sent)
    assert offsets.uncommitted() == {A: 4}


def test_a_commit_that_failed_is_made_up_for_by_the_next() -> None:
    offsets = delivered(a=3)
    offsets.uncommitted()
    assert offsets.uncommitted() == {A: 3}


def test_a_partition_that_stays_through_a_rebalance_keeps_its_offset() -> None:
    offsets = delivered(a=3, b=7)
    offsets.revoke({A, B})
    offsets.assign({A, C})
    assert offsets.uncommitted() == {A: 3}
    assert [offsets.is_lost(partition) for partition in (A, B, C)] == [False, True, False]


def test_a_partition_of_which_nothing_was_delivered_can_be_lost_too() -> None:
    offsets = Offsets()
    offsets.revoke({A})
    offsets.assign(set())
    assert offsets.is_lost(A)


def test_what_was_in_hand_of_a_lost_partition_is_not_committed_although_it_was_delivered() -> None:
    offsets = delivered(a=3)
    offsets.revoke({A})
    offsets.deliver(A, 4)  # in the midst of the rebalance
    offsets.assign(set())
    offsets.deliver(A, 5)
    assert offsets.uncommitted() == {}


def test_what_is_in_hand_of_a_partition_that_went_and_came_back_stays_lost_until_the_next_poll() -> None:
    offsets = delivered(a=3)
    offsets.revoke({A})
    offsets.assign(set())
    offsets.assign({A})
    offsets.deliver(A, 4)
    assert offsets.is_lost(A)
    assert offsets.uncommitted() == {}
    offsets.poll()
    offsets.deliver(A, 2)
    assert offsets.uncommitted() == {A: 2}


def test_a_member_taken_for_dead_loses_all() -> None:
    offsets = delivered(a=3, b=7)
    offsets.lose({A, B})
    assert offsets.uncommitted() == {}
    offsets.assign({A})
    assert offsets.is_lost(A)


def test_a_rebalance_that_ended_is_over() -> None:
    offsets = delivered(a=3)
    offsets.revoke({A})
    offsets.assign({A})
    offsets.poll()
    offsets.assign({B})  # of another rebalance that revoked nothing
    assert offsets.uncommitted() == {A: 3}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.sampled_from([A, B, C]), st.integers(0, 9)),
        st.tuples(st.sampled_from(["revoke", "assign", "lose"]), st.sets(st.sampled_from([A, B, C])), st.none()),
        st.tuples(st.just("poll"), st.none(), st.none()),
    ),
    max_size=30,
)


@given(STEPS)
def test_nothing_of_a_lost_partition_is_ever_to_be_committed(steps: list[tuple[str, object, object]]) -> None:
    offsets = Offsets()
    for name, what, offset in steps:
        getattr(offsets, name)(*(argument for argument in (what, offset) if argument is not None))
        assert not any(offsets.is_lost(partition) for partition in offsets.uncommitted())


@pytest.mark.parametrize("partition", [A, B])
def test_committing_what_is_unknown_changes_nothing(partition: TopicPartition) -> None:
    offsets = delivered(a=3)
    offsets.commit({partition: 99})
    assert offsets.uncommitted() == {A: 3}
