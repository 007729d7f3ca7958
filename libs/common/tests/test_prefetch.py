"""The next value of an iterator is computed while the consumer handles the current one, and never more."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from vesta_common.prefetch import prefetched


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_all_values_arrive_in_order(count: int) -> None:
    with ThreadPoolExecutor(1) as thread:
        assert list(prefetched(iter(range(count)), thread)) == list(range(count))


def test_exactly_one_value_is_computed_ahead() -> None:
    computed: list[int] = []
    is_ahead = threading.Event()

    def values() -> Iterator[int]:
        for value in range(5):
            computed.append(value)
            if value == 1:
                is_ahead.set()
            yield value

    with ThreadPoolExecutor(1) as thread:
        assert next(prefetched(values(), thread)) == 0
        assert is_ahead.wait(10)
    assert computed == [0, 1]


def test_an_error_is_raised_after_the_values_before_it() -> None:
    def values() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    with ThreadPoolExecutor(1) as thread:
        found = prefetched(values(), thread)
        assert next(found) == 1
        with pytest.raises(KeyError):
            next(found)
