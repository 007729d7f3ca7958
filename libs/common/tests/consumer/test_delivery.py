"""Each record comes to its end, in order, whatever its handler, the dead-letter topic and the group do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from vesta_common.clock import ManualClock
from vesta_common.errors import InvalidArgument, Unavailable
from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer.delivery import STORE_BACKOFF, Delivery, Stopping
from vesta_common.events.consumer.offsets import Offsets
from vesta_common.events.consumer.records import InvalidRecord
from vesta_common.events.consumer.retries import CircuitBreaker, TooManyDeadLetters

PARTITION = TopicPartition("task", 0)
PASSED_OVER = "passed over"
POISON = "poison"


@dataclass
class Record:
    """As kafka-python gives them, but that the value is the event's id."""

    offset: int
    value: str
    topic: str = "task"
    partition: int = 0
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def records(*values: str, first: int = 10) -> list[Record]:
    return [Record(offset, value) for offset, value in enumerate(values, first)]


def read(record: Record) -> Event | None:
    if record.value == POISON:
        raise InvalidRecord("EVENT_MALFORMED: it is no event")
    if record.value == PASSED_OVER:
        return None
    return Event(record.value, "", "", "", datetime(2026, 1, 1, tzinfo=UTC), None, {})


@dataclass
class Bench:
    """A delivery whose surroundings the test plays.

    Attributes:
        failing: what the handler raises for an event's id, one after another; then it works.
        keeping: what the dead-letter topic raises, one after another; then it works.
        on_rest: what happens meanwhile.
        tries: the ids of each transaction tried.
        had: the ids that had their effect, in order.
        kept: the dead letters, with their reasons.
    """

    failing: dict[str, list[Exception]] = field(default_factory=dict)
    keeping: list[KafkaError] = field(default_factory=list)
    on_rest: Callable[[], None] = lambda: None
    on_stay: Callable[[], None] = lambda: None
    dead_letters_max: int = 100
    offsets: Offsets = field(default_factory=Offsets)
    tries: list[list[str]] = field(default_factory=list)
    had: list[str] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    rests: list[timedelta] = field(default_factory=list)

    def deliver(self, found: Sequence[Record]) -> None:
        circuit_breaker = CircuitBreaker(ManualClock(), self.dead_letters_max)
        Delivery("labels", self, read, self._handle, self._keep, circuit_breaker).deliver(PARTITION, found)

    @property
    def next_offset(self) -> int | None:
        return self.offsets.uncommitted().get(PARTITION)

    def wait(self, duration: timedelta) -> None:
        self.rests.append(duration)
        self.on_rest()

    def poll_if_due(self) -> None:
        self.on_stay()

    def lose(self) -> None:
        self.offsets.revoke({PARTITION})
        self.offsets.assign(set())

    def _handle(self, events: Sequence[Event]) -> None:
        self.tries.append([event.id for event in events])
        for event in events:
            if self.failing.get(event.id):
                raise self.failing[event.id].pop(0)
        self.had += [event.id for event in events]

    def _keep(self, record: Record, reason: str) -> None:
        if self.keeping:
            raise self.keeping.pop(0)
        self.kept.append((record.value, reason))


def stop() -> None:
    raise Stopping


def test_what_works_is_handled_together_and_the_next_offset_is_that_after_the_last() -> None:
    bench = Bench()
    bench.deliver(records("a", "b", PASSED_OVER, "c", first=10))
    assert bench.tries == [["a", "b", "c"]]
    assert bench.next_offset == 14


def test_records_that_are_not_for_us_are_passed_over() -> None:
    bench = Bench()
    bench.deliver(records(PASSED_OVER))
    assert (bench.had, bench.kept, bench.next_offset) == ([], [], 11)


def test_offsets_may_have_gaps() -> None:
    bench = Bench()
    bench.deliver([Record(3, "a"), Record(90, "b")])
    assert bench.next_offset == 91


def test_what_fails_for_a_while_holds_up_what_comes_after_it() -> None:
    bench = Bench(failing={"b": [Unavailable("away")] * 20})
    bench.deliver(records("a", "b", "c"))
    assert bench.tries == [["a", "b", "c"], ["a"], *[["b"]] * 20, ["c"]]
    assert bench.had == ["a", "b", "c"]
    assert bench.kept == []
    assert bench.next_offset == 13


def test_what_fails_for_good_is_kept_with_the_reason_and_the_rest_goes_on() -> None:
    wrong = InvalidArgument("b is not liked", reason="LETTER_B")
    bench = Bench(failing={"b": [wrong] * 4})
    bench.deliver(records("a", "b", "c"))
    assert bench.tries == [["a", "b", "c"], ["a"], ["b"], ["b"], ["b"], ["c"]]
    assert bench.kept == [("b", "LETTER_B: b is not liked")]
    assert bench.next_offset == 13


def test_poison_is_kept_at_once_and_is_no_fault_of_ours() -> None:
    bench = Bench(dead_letters_max=1)
    bench.deliver(records("a", POISON, POISON, "b"))
    assert bench.tries == [["a"], ["b"]]
    assert bench.kept == [(POISON, "EVENT_MALFORMED: it is no event")] * 2
    assert bench.rests == []


def test_a_reading_that_fails_is_retried_like_a_handler() -> None:
    bench = Bench()
    errors: list[Exception] = [Unavailable("away"), KeyError("one"), KeyError("two"), KeyError("three")]

    def read_in_vain(_: Record) -> Event | None:
        raise errors.pop(0)

    Delivery("labels", bench, read_in_vain, lambda _: None, bench._keep, CircuitBreaker(ManualClock())).deliver(
        PARTITION, records("a")
    )
    assert bench.kept == [("a", "KeyError: 'three'")]
    assert len(bench.rests) == 3


def test_a_record_is_not_passed_over_before_the_dead_letter_topic_has_it() -> None:
    bench = Bench(keeping=[KafkaTimeoutError()] * 3)
    seen: list[int | None] = []
    bench.on_rest = lambda: seen.append(bench.next_offset)
    bench.deliver(records("a", POISON))
    assert bench.rests == [STORE_BACKOFF] * 3
    assert seen == [11, 11, 11]
    assert (len(bench.kept), bench.next_offset) == (1, 12)


def test_the_dead_letter_that_is_one_too_many_is_kept_and_will_not_come_again() -> None:
    failing = {name: [KeyError(name)] * 4 for name in "bcd"}
    bench = Bench(failing=failing, dead_letters_max=2)
    with pytest.raises(TooManyDeadLetters, match="2 events could not be handled; the last error: KeyError"):
        bench.deliver(records("a", "b", "c", "d"))
    assert [value for value, _ in bench.kept] == ["b", "c"]
    assert bench.next_offset == 13


def test_stopping_ends_a_retry_before_the_record_in_hand() -> None:
    bench = Bench(failing={"b": [Unavailable("away")] * 20}, on_rest=stop)
    with pytest.raises(Stopping):
        bench.deliver(records("a", "b", "c"))
    assert (bench.had, bench.next_offset) == (["a"], 11)


def test_stopping_ends_the_wait_for_the_dead_letter_topic() -> None:
    bench = Bench(keeping=[KafkaTimeoutError()] * 20, on_rest=stop)
    with pytest.raises(Stopping):
        bench.deliver(records(POISON))
    assert bench.next_offset is None


def test_stopping_comes_between_records() -> None:
    bench = Bench(failing={"a": [Unavailable("away")]}, on_stay=stop)
    with pytest.raises(Stopping):
        bench.deliver(records("a", "b"))
    assert (bench.had, bench.next_offset) == (["a"], 11)


def test_a_partition_that_is_lost_during_a_retry_is_left_to_its_new_owner() -> None:
    bench = Bench(failing={"b": [Unavailable("away")] * 20})
    bench.on_rest = bench.lose
    bench.deliver(records("a", "b", "c"))
    assert bench.tries == [["a", "b", "c"], ["a"], ["b"]]
    assert bench.next_offset is None


def test_a_partition_that_is_lost_between_records_is_left_to_its_new_owner() -> None:
    bench = Bench(failing={"a": [Unavailable("away")]})
    bench.on_stay = bench.lose
    bench.deliver(records("a", "b"))
    assert bench.had == ["a"]
    assert bench.next_offset is None


def test_a_partition_that_is_lost_while_the_dead_letter_topic_is_away_is_left_to_its_new_owner() -> None:
    bench = Bench(keeping=[KafkaTimeoutError()] * 20)
    bench.on_rest = bench.lose
    bench.deliver(records(POISON, "b"))
    assert (bench.had, bench.kept, bench.next_offset) == ([], [], None)


def test_what_was_polled_with_it_of_a_partition_that_is_lost_by_now_is_dropped() -> None:
    bench = Bench()
    bench.lose()
    bench.deliver(records("a", "b"))
    assert (bench.tries, bench.next_offset) == ([], None)


def test_a_partition_that_stays_through_a_rebalance_is_delivered_on() -> None:
    bench = Bench(failing={"b": [Unavailable("away")] * 3})

    def rebalance() -> None:
        bench.offsets.revoke({PARTITION})
        bench.offsets.assign({PARTITION})

    bench.on_rest = rebalance
    bench.deliver(records("a", "b", "c"))
    assert (bench.had, bench.next_offset) == (["a", "b", "c"], 13)
