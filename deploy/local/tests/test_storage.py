"""Disk space and sockets of the object store, and when the store is restarted."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from vesta_common.disk_space import DiskSpace
from vesta_local import testing
from vesta_local.engines import objects
from vesta_local.engines.storage import READ_ONLY_BELOW, StorageWatchdog, sockets, state, state_of
from vesta_local.home import Home
from vesta_local.platform import Platform

SIZE_BYTES = 1000
NO_SOCKETS: frozenset[Path] = frozenset()
PLENTY = DiskSpace(900, SIZE_BYTES)


@pytest.fixture
def storage_apart() -> Iterator[Platform]:
    """An object store for one test, with its watchdog."""
    with testing.running_platform(block=1, only=("objects", "storage")) as platform:
        yield platform


@pytest.mark.parametrize(
    ("free", "restarts"),
    [
        ([], 0),
        ([900, 100, 900], 0),
        ([900, 16, 900], 0),  # never so little that the store stopped writing
        ([900, 14, 900, 900], 1),
        ([14, 19, 20, 900], 1),
        ([14, 19, 18], 0),  # no space yet
        ([0, 900, 0, 900], 2),
    ],
)
def test_the_store_is_restarted_once_there_is_room_again(free: Sequence[int], restarts: int) -> None:
    restarted: list[bool] = []

    def restart() -> bool:
        restarted.append(True)
        return True

    watch = StorageWatchdog(restart)
    for free_bytes in free:
        watch.check(DiskSpace(free_bytes, SIZE_BYTES), NO_SOCKETS)
    assert len(restarted) == restarts


def test_a_restart_that_failed_is_tried_again() -> None:
    answers = iter([False, False, True])
    watch = StorageWatchdog(lambda: next(answers))
    for free_bytes in (0, 900, 900, 900, 900):
        watch.check(DiskSpace(free_bytes, SIZE_BYTES), NO_SOCKETS)
    assert next(answers, None) is None


@pytest.mark.parametrize(
    ("free_bytes", "word"),
    [(500, "healthy"), (99, "low: 10% free"), (55, "low: 6% free"), (19, "full: 2% free"), (0, "full: 0% free")],
)
def test_the_table_says_how_full_the_disk_is(free_bytes: int, word: str) -> None:
    assert state_of(DiskSpace(free_bytes, SIZE_BYTES)) == word


def test_the_store_is_thought_read_only_before_it_is() -> None:
    assert READ_ONLY_BELOW > 0.01


@pytest.mark.own_engines
def test_a_restarted_program_is_another_process_and_healthy(engines: Platform) -> None:
    before = engines.supervisor.pid("objects")
    engines.restart("objects")
    assert engines.supervisor.pid("objects") != before
    assert engines.programs["objects"].is_healthy()


@pytest.mark.parametrize(
    ("missing", "restarts"),
    [
        (["", "", ""], 0),
        (["ab", "", "ab"], 0),  # it was starting
        (["", "a", "a"], 1),
        (["", "a", "b", ""], 0),
        (["ab", "ab", "", ""], 1),
        (["ab", "ab", "", "a", "a"], 2),
        (["ab", "ab", "ab"], 1),  # it is starting
    ],
)
def test_the_store_is_restarted_where_a_socket_is_missing_twice(missing: Sequence[str], restarts: int) -> None:
    restarted: list[bool] = []

    def restart() -> bool:
        restarted.append(True)
        return True

    watch = StorageWatchdog(restart)
    for names in missing:
        watch.check(PLENTY, frozenset(Path(name) for name in names))
    assert len(restarted) == restarts


@pytest.mark.own_engines
def test_a_store_whose_sockets_were_deleted_writes_again(storage_apart: Platform) -> None:
    home = storage_apart.home
    store, found = objects.client(home), sockets(home)
    assert all(path.exists() for path in found)
    store.put_object(Bucket=objects.BUCKET, Key="before", Body=b"1")
    before = storage_apart.supervisor.pid("objects")
    for path in found:
        path.unlink()
    deadline = time.monotonic() + 60
    while storage_apart.supervisor.pid("objects") in (0, before):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    storage_apart.wait_healthy(["objects"])
    store.put_object(Bucket=objects.BUCKET, Key="after", Body=b"1")
    assert store.get_object(Bucket=objects.BUCKET, Key="before")["Body"].read() == b"1"


def test_the_disk_of_a_home_is_told(tmp_path: Path) -> None:
    assert state(Home(tmp_path)).partition(":")[0] in {"healthy", "low", "full"}
