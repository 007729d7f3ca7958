"""Bytes in memory are bounded: what does not fit waits, or is refused."""

from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from vesta_common.byte_budget import ByteBudget
from vesta_common.errors import ResourceExhausted


def test_who_brings_more_than_there_is_room_for_waits_until_enough_has_gone() -> None:
    budget = ByteBudget(bytes_max=10)
    budget.wait_for(4)
    budget.wait_for(6)
    with ThreadPoolExecutor(1) as threads:
        third = threads.submit(budget.wait_for, 6)
        assert not wait([third], 0.05).done
        budget.release(4)
        assert not wait([third], 0.05).done
        budget.release(6)
        third.result(timeout=10)


def test_what_is_larger_than_all_the_room_comes_in_alone() -> None:
    budget = ByteBudget(bytes_max=10)
    with ThreadPoolExecutor(2) as threads:
        threads.submit(budget.wait_for, 11).result(timeout=10)
        second = threads.submit(budget.wait_for, 1)
        assert not wait([second], 0.05).done
        budget.release(11)
        second.result(timeout=10)
        large = threads.submit(budget.wait_for, 11)
        assert not wait([large], 0.05).done
        budget.release(1)
        large.result(timeout=10)


def test_bytes_are_counted_over_all() -> None:
    budget = ByteBudget(10)
    budget.acquire(6)

    with pytest.raises(ResourceExhausted) as caught:
        budget.acquire(5)
    assert caught.value.reason == "MEMORY_LIMITED"

    budget.release(6)
    budget.acquire(10)
