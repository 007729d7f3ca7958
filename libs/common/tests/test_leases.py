"""Leases: one worker at a time has a row, writes of earlier ones are rejected, and a heartbeat keeps the lease."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.rows import DictRow
from vesta_common.backoff import exponential_backoff
from vesta_common.clock import ManualClock
from vesta_common.leases import Lease, LeaseLost, Leases, Row
from vesta_common.storage.postgres import Connection, Postgres

DURATION = timedelta(seconds=30)
TICK = timedelta(microseconds=1)
BRIEFLY = timedelta(milliseconds=2)
LEASES = Leases("jobs", DURATION, key=("queue", "name"), unfinished="NOT done", claimable="hold_time <= %(now)s")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def postgres(postgres_url: str, postgres_schema: str) -> Iterator[Postgres]:
    """A database with the jobs 0 to 3 of one queue, in order."""
    postgres = Postgres(postgres_url, postgres_schema).open()
    with postgres.transaction() as connection:
        connection.execute(f"CREATE SCHEMA {postgres_schema}".encode())
        connection.execute(
            "CREATE TABLE jobs (queue text, name text, done boolean DEFAULT false, result text DEFAULT '',"
            " create_time timestamptz, hold_time timestamptz DEFAULT 'epoch', lease_expire_time timestamptz,"
            " fencing_token bigint NOT NULL DEFAULT 0, attempt_count integer NOT NULL DEFAULT 0,"
            " PRIMARY KEY (queue, name))"
        )
        for number in range(4):
            connection.execute(
                "INSERT INTO jobs (queue, name, create_time) VALUES ('q', %s, now() + %s * interval '1 second')",
                (str(number), number),
            )
    yield postgres
    postgres.close()


def run(postgres: Postgres, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with postgres.transaction() as connection:
        return operation(connection, *arguments, **options)


def claim(postgres: Postgres, now: datetime) -> Lease:
    found = run(postgres, LEASES.claim, now)
    assert found is not None
    return found


def leave_one(postgres: Postgres) -> None:
    with postgres.transaction() as connection:
        connection.execute("UPDATE jobs SET done = name <> '0'")


def row_of(postgres: Postgres, lease: Lease) -> DictRow:
    with postgres.transaction() as connection:
        row = connection.execute("SELECT * FROM jobs WHERE name = %s", (lease.key["name"],)).fetchone()
    assert row is not None
    return row


def write(postgres: Postgres, lease: Lease, result: str) -> None:
    with postgres.transaction() as connection:
        LEASES.verify(connection, lease)
        connection.execute("UPDATE jobs SET result = %s WHERE name = %s", (result, lease.key["name"]))


def test_rows_are_claimed_in_order_and_each_once(postgres: Postgres, clock: ManualClock) -> None:
    names = [claim(postgres, clock.now()).key["name"] for _ in range(4)]
    assert names == ["0", "1", "2", "3"]
    assert run(postgres, LEASES.claim, clock.now()) is None


def test_two_workers_never_hold_one_row(postgres: Postgres, clock: ManualClock) -> None:
    def claim_all(_: int) -> list[str]:
        claimed = []
        while (lease := run(postgres, LEASES.claim, clock.now())) is not None:
            claimed.append(lease.key["name"])
        return claimed

    with postgres.transaction() as connection:
        connection.execute(
            "INSERT INTO jobs (queue, name, create_time) SELECT 'r', number::text, now() FROM generate_series(10, 69) AS number"
        )
    with ThreadPoolExecutor(6) as workers:
        claimed = [name for names in workers.map(claim_all, range(6)) for name in names]
    assert (len(claimed), len(set(claimed))) == (64, 64)


def test_a_row_that_another_transaction_is_claiming_is_skipped(postgres: Postgres, clock: ManualClock) -> None:
    with postgres.transaction() as connection:
        first = LEASES.claim(connection, clock.now())
        second = claim(postgres, clock.now())
    assert first is not None
    assert (first.key["name"], second.key["name"]) == ("0", "1")


def test_a_batch_has_at_most_as_many_rows_as_asked_for(postgres: Postgres, clock: ManualClock) -> None:
    first, second = (run(postgres, LEASES.claim_many, clock.now(), 3) for _ in range(2))
    assert [sorted(lease.key["name"] for lease in batch) for batch in (first, second)] == [["0", "1", "2"], ["3"]]
    run(postgres, LEASES.verify, *first, *second)
    run(postgres, LEASES.release, *first, counted=False)
    assert len(run(postgres, LEASES.claim_many, clock.now(), 9)) == 3
    with pytest.raises(LeaseLost):
        run(postgres, LEASES.verify, *first, *second)


def test_an_expired_lease_is_claimed_again_and_its_worker_can_write_no_more(
    postgres: Postgres, clock: ManualClock
) -> None:
    leave_one(postgres)
    slow = claim(postgres, clock.now())
    clock.advance(DURATION - TICK)
    assert run(postgres, LEASES.claim, clock.now()) is None
    clock.advance(TICK)
    fast = claim(postgres, clock.now())
    assert (fast.fencing_token, fast.attempt_count) == (slow.fencing_token + 1, 2)
    write(postgres, fast, "right")
    with pytest.raises(LeaseLost, match="jobs q 0 is lost"):
        write(postgres, slow, "late")
    with pytest.raises(LeaseLost):
        run(postgres, LEASES.renew, slow, clock.now())
    run(postgres, LEASES.release, slow)
    run(postgres, LEASES.postpone, slow, clock.now())
    row = row_of(postgres, fast)
    assert (row["result"], row["lease_expire_time"]) == ("right", clock.now() + DURATION)


def test_a_worker_whose_lease_expired_may_write_until_another_claims_the_row(
    postgres: Postgres, clock: ManualClock
) -> None:
    slow = claim(postgres, clock.now())
    clock.advance(DURATION * 2)
    write(postgres, slow, "late but alone")
    assert row_of(postgres, slow)["result"] == "late but alone"


def test_no_other_worker_claims_a_row_while_a_verified_write_is_not_committed(
    postgres: Postgres, clock: ManualClock
) -> None:
    leave_one(postgres)
    slow = claim(postgres, clock.now())
    clock.advance(DURATION)
    with postgres.transaction() as connection:
        LEASES.verify(connection, slow)
        assert run(postgres, LEASES.claim, clock.now()) is None
    assert claim(postgres, clock.now()).attempt_count == 2


@pytest.mark.parametrize("ending", ["UPDATE jobs SET done = true", "DELETE FROM jobs"])
def test_the_lease_on_a_row_that_is_finished_or_deleted_is_lost(
    ending: str, postgres: Postgres, clock: ManualClock
) -> None:
    lease = claim(postgres, clock.now())
    with postgres.transaction() as connection:
        connection.execute(ending.encode())
    with pytest.raises(LeaseLost):
        write(postgres, lease, "late")


def test_a_condition_on_claims_does_not_end_a_lease(postgres: Postgres, clock: ManualClock) -> None:
    lease = claim(postgres, clock.now())
    with postgres.transaction() as connection:
        connection.execute("UPDATE jobs SET hold_time = %s", (clock.now() + DURATION * 2,))
    run(postgres, LEASES.renew, lease, clock.now())
    clock.advance(DURATION)
    assert run(postgres, LEASES.claim, clock.now()) is None
    clock.advance(DURATION)
    assert claim(postgres, clock.now()).key == lease.key


def test_a_renewed_lease_lasts_from_then_on(postgres: Postgres, clock: ManualClock) -> None:
    leave_one(postgres)
    lease = claim(postgres, clock.now())
    clock.advance(DURATION - TICK)
    assert run(postgres, LEASES.renew, lease, clock.now())["name"] == "0"
    clock.advance(DURATION - TICK)
    assert run(postgres, LEASES.claim, clock.now()) is None


@pytest.mark.parametrize(("counted", "attempt_count"), [(True, 2), (False, 1)])
def test_a_released_row_is_claimed_at_once(
    *, counted: bool, attempt_count: int, postgres: Postgres, clock: ManualClock
) -> None:
    lease = claim(postgres, clock.now())
    run(postgres, LEASES.release, lease, counted=counted)
    again = claim(postgres, clock.now())
    assert (again.key, again.attempt_count) == (lease.key, attempt_count)
    assert again.fencing_token > lease.fencing_token


@pytest.mark.parametrize(("counted", "attempt_count"), [(True, 2), (False, 1)])
def test_a_postponed_row_is_claimed_at_its_time(
    *, counted: bool, attempt_count: int, postgres: Postgres, clock: ManualClock
) -> None:
    leave_one(postgres)
    lease = claim(postgres, clock.now())
    run(postgres, LEASES.postpone, lease, clock.now() + timedelta(minutes=5), counted=counted)
    clock.advance(timedelta(minutes=5) - TICK)
    assert run(postgres, LEASES.claim, clock.now()) is None
    clock.advance(TICK)
    assert claim(postgres, clock.now()).attempt_count == attempt_count


def test_a_heartbeat_keeps_a_lease_for_longer_than_its_duration(postgres: Postgres, clock: ManualClock) -> None:
    leave_one(postgres)
    lease, renewed = claim(postgres, clock.now()), threading.Event()

    def note(connection: Connection, row: Row) -> None:
        if row["lease_expire_time"] == clock.now() + DURATION:
            connection.execute("UPDATE jobs SET result = 'renewed'")
            renewed.set()

    with LEASES.heartbeat(postgres, lease, clock, BRIEFLY, note) as heartbeat:
        for _ in range(3):
            clock.advance(DURATION * 0.9)
            renewed.clear()
            assert renewed.wait(10)
            heartbeat.check()
        assert run(postgres, LEASES.claim, clock.now()) is None
    assert row_of(postgres, lease)["result"] == "renewed"
    clock.advance(DURATION * 2)
    assert claim(postgres, clock.now()).attempt_count == 2, "nothing renews it after the block"


def test_a_heartbeat_says_when_the_lease_is_lost(postgres: Postgres, clock: ManualClock) -> None:
    lease = claim(postgres, clock.now())
    with LEASES.heartbeat(postgres, lease, clock, BRIEFLY) as heartbeat:
        heartbeat.check()
        with postgres.transaction() as connection:
            connection.execute("UPDATE jobs SET fencing_token = fencing_token + 1")
        assert heartbeat.lost.wait(10)
        with pytest.raises(LeaseLost, match="jobs q 0"):
            heartbeat.check()


def test_a_heartbeat_goes_on_after_an_outage_of_the_database(postgres: Postgres, clock: ManualClock) -> None:
    lease, renewed, outages = claim(postgres, clock.now()), threading.Event(), iter(range(3))

    def note(connection: Connection, row: Row) -> None:
        if next(outages, None) is None:
            renewed.set()
        else:
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with LEASES.heartbeat(postgres, lease, clock, BRIEFLY, note) as heartbeat:
        assert renewed.wait(10)
        heartbeat.check()


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(0, 2), (1, 2), (2, 4), (3, 8), (6, 64), (7, 100), (8, 100), (10**9, 100)]
)
def test_a_backoff_doubles_up_to_its_maximum(attempt: int, seconds: int) -> None:
    assert exponential_backoff(attempt, timedelta(seconds=2), timedelta(seconds=100)) == timedelta(seconds=seconds)


def test_a_backoff_is_never_longer_than_its_maximum() -> None:
    assert exponential_backoff(1, timedelta(seconds=2), timedelta(seconds=1)) == timedelta(seconds=1)
