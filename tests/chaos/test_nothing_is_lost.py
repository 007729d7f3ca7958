"""Everything is killed, one after another, while a loop turns; the loop completes, and every answer counts exactly once."""

import random
import threading
import time
from pathlib import Path

import pytest
from small_loop import set_up
from vesta_contracts.annotation.v1 import ListTasksRequest
from vesta_contracts.conductor.v1 import ListDecisionsRequest, LoopStatus
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(900)]

SEED = 20
REST_SECONDS = (0.5, 3.0)


def test_a_loop_completes_through_the_death_of_everything(platform: WholePlatform, tmp_path: Path) -> None:
    small = set_up(platform, tmp_path, images_per_class=40, budget=36, batch=12)
    killed: list[str] = []
    finished = threading.Event()
    killer = threading.Thread(target=_kill_all, args=(platform, killed, finished), daemon=True)
    killer.start()
    try:
        status = small.turn_until(lambda now: now.phase == LoopStatus.EXHAUSTED and not killer.is_alive(), seconds=600)
    finally:
        finished.set()
        killer.join(60)
    platform.wait_healthy()
    assert set(killed) == set(platform.platform.programs)
    assert len(small.ended_rounds()) == 3
    accepted = list(
        small.owner.pages(
            small.owner.tasks.ListTasks, ListTasksRequest(parent=status.campaign, filter="state = ACCEPTED")
        )
    )
    labelled = {item.name: item for item in small.items("labelled AND split = TRAIN")}
    assert len(accepted) == 36
    assert {task.item for task in accepted} == set(labelled)
    assert {task.name for task in accepted} == {item.accepted.task for item in labelled.values()}
    assert all(
        [one.concept for one in item.accepted.annotations] == [small.truth(name)] for name, item in labelled.items()
    )
    decisions = list(small.owner.pages(small.owner.loops.ListDecisions, ListDecisionsRequest(parent=small.loop)))
    assert len({one.request_id for one in decisions}) == len(decisions)


def _kill_all(platform: WholePlatform, killed: list[str], finished: threading.Event) -> None:
    """Kills each program once, in a random order, at random moments; the next one when the last is back."""
    draw = random.Random(SEED)
    names = sorted(platform.platform.programs)
    draw.shuffle(names)
    for name in names:
        if finished.wait(draw.uniform(*REST_SECONDS)):
            return
        platform.kill(name)
        killed.append(name)
        platform.wait_healthy(name)
        time.sleep(0.1)
