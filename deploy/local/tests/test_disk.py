"""The disk under the platform: how it is told, and when the object store is restarted."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from vesta_common.disk_space import DiskSpace
from vesta_local.engines.disk import READ_ONLY_BELOW, Watch, state, state_of
from vesta_local.home import Home
from vesta_local.platform import Platform

SIZE_BYTES = 1000


@pytest.mark.parametrize(
    ("free", "restarts"),
    [
        ([], 0),
        ([900, 100, 900], 0),
        ([900, 16, 900], 0),  # never so little that the store stopped writing
        ([900, 14, 900, 900], 1),
        ([14, 19, 20, 900], 1),
        ([14, 19, 18], 0),  # no room yet
        ([0, 900, 0, 900], 2),
    ],
)
def test_the_store_is_restarted_once_there_is_room_again(free: Sequence[int], restarts: int) -> None:
    restarted: list[bool] = []

    def restart() -> bool:
        restarted.append(True)
        return True

    watch = Watch(restart)
    for free_bytes in free:
        watch.look(DiskSpace(free_bytes, SIZE_BYTES))
    assert len(restarted) == restarts


def test_a_restart_that_failed_is_tried_again() -> None:
    answers = iter([False, False, True])
    watch = Watch(lambda: next(answers))
    for free_bytes in (0, 900, 900, 900, 900):
        watch.look(DiskSpace(free_bytes, SIZE_BYTES))
    assert next(answers, None) is None


@pytest.mark.parametrize(
    ("free_bytes", "word"),
    [(500, "healthy"), (99, "low: 10% free"), (55, "low: 6% free"), (19, "full: 2% free"), (0, "full: 0% free")],
)
def test_the_table_says_how_full_the_disk_is(free_bytes: int, word: str) -> None:
    assert state_of(DiskSpace(free_bytes, SIZE_BYTES)) == word


def test_the_store_is_thought_read_only_before_it_is() -> None:
    assert READ_ONLY_BELOW > 0.01


def test_a_restarted_program_is_another_process_and_healthy(engines: Platform) -> None:
    before = engines.supervisor.pid("objects")
    engines.restart("objects")
    assert engines.supervisor.pid("objects") != before
    assert engines.programs["objects"].is_healthy()


def test_the_disk_of_a_home_is_told(tmp_path: Path) -> None:
    assert state(Home(tmp_path)).partition(":")[0] in {"healthy", "low", "full"}
