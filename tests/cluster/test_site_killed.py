"""Pods are deleted at random and without grace while a loop turns and pictures are uploaded: nothing is lost, and the loop completes."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from node_figures import Figures
from site_on_node import Site, is_ready
from small_loop import SmallLoop, set_up_at
from traffic import running
from uploads import Uploads
from vesta_contracts.annotation.v1 import ListTasksRequest, Task
from vesta_contracts.conductor.v1 import LoopStatus

pytestmark = pytest.mark.timeout(2400)

SEED = 9
KILLS = 40
BATCH, ROUNDS = 20, 4
BUDGET = BATCH * ROUNDS
PAUSE_SECONDS = (1.0, 5.0)
AWAY_MAX = 3  # pods that are not ready, when another one dies
PATIENCE_SECONDS = 1200


@dataclass
class Killer:
    """Deletes pods of the site, any of them, until it has deleted enough; restarts the node's programs in the middle.

    Attributes:
        killed: the components whose pods it deleted.
    """

    site: Site
    restart_node: Callable[[], None]
    killed: list[str] = field(default_factory=list)
    _draw: random.Random = field(default_factory=lambda: random.Random(SEED))

    @property
    def is_done(self) -> bool:
        """Whether it has deleted as many as it was to."""
        return len(self.killed) >= KILLS

    def kill(self, stop: threading.Event) -> None:
        """Until it is done, or told to stop."""
        while not self.is_done and not stop.wait(self._draw.uniform(*PAUSE_SECONDS)):
            pods = self.site.pods()
            ready = [pod for pod in pods if is_ready(pod)]
            if len(pods) - len(ready) > AWAY_MAX:
                continue
            pod = self._draw.choice(ready)["metadata"]
            self.site.kube(
                "delete", "pod", pod["name"], "--grace-period=0", "--force", "--ignore-not-found", "--wait=false"
            )
            self.killed.append(pod["labels"]["app.kubernetes.io/component"])
            if len(self.killed) == KILLS // 2:
                self.restart_node()


@dataclass(frozen=True)
class Aftermath:
    """What there is when all has come back."""

    small: SmallLoop
    status: LoopStatus
    killer: Killer
    uploads: Uploads


@pytest.fixture(scope="module")
def aftermath(
    site: Site, restart_node: Callable[[], None], tmp_path_factory: pytest.TempPathFactory, figures: Figures
) -> Aftermath:
    """A loop that has turned to its end while pods died."""
    samples = tmp_path_factory.mktemp("samples")
    small = set_up_at(site.owner(), site.grpc, None, samples, images_per_class=60, budget=BUDGET, batch=BATCH)
    small.experts.lease_count = 2  # few at a time, so that kills fall between their answers
    uploads = Uploads(site, small, samples)
    killer = Killer(site, restart_node)

    def may_answer(status: LoopStatus) -> bool:
        time.sleep(0.3)
        return killer.is_done or status.labels_spent < BUDGET - BATCH

    with running(uploads.upload), running(killer.kill):
        small.turn_until(lambda _: killer.is_done, PATIENCE_SECONDS, may_answer)
        status = small.turn_until(lambda now: now.phase == LoopStatus.EXHAUSTED, PATIENCE_SECONDS)
    made = Aftermath(small, status, killer, uploads)
    figures.at_most(
        f"lost after {len(killer.killed)} pods deleted without grace while the loop turned",
        len(uploads.lost()),
        0,
        "items",
    )
    return made


def test_every_kind_of_pod_died(aftermath: Aftermath) -> None:
    assert len(aftermath.killer.killed) == KILLS
    assert len(set(aftermath.killer.killed)) > 8


def test_the_loop_came_to_its_end(aftermath: Aftermath) -> None:
    rounds = [one for one in aftermath.status.rounds if one.HasField("end_time")]
    assert len(rounds) == ROUNDS
    assert aftermath.status.labels_spent == BUDGET


def test_every_accepted_answer_is_in_the_dataset_once(aftermath: Aftermath) -> None:
    small = aftermath.small
    request = ListTasksRequest(parent=aftermath.status.campaign)
    tasks = [one for one in small.owner.pages(small.owner.tasks.ListTasks, request) if one.state == Task.ACCEPTED]
    labelled = {item.name: item for item in small.items("labelled AND split = TRAIN")}
    assert len(tasks) == BUDGET
    assert labelled.keys() == {task.item for task in tasks}
    for task in tasks:
        accepted = labelled[task.item].accepted
        assert accepted.task == task.name
        assert list(accepted.annotations) == list(small.truth(task.item))


def test_every_acknowledged_upload_is_an_item(aftermath: Aftermath) -> None:
    assert len(aftermath.uploads.acknowledged) > KILLS
    assert aftermath.uploads.lost() == set()
