"""The loop turns on the node: photographs come in through the gateway, runs train in Jobs, and the best version answers."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_figures import Figures
from site_on_node import Site
from small_loop import SmallLoop, set_up_at
from traffic import running
from vesta_contracts.conductor.v1 import LoopStatus

pytestmark = pytest.mark.timeout(900)

GOAL_GIB = 3.0
SAMPLE_SECONDS = 3.0
PATIENCE_SECONDS = 600


class Scales:
    """Weighs the pods again and again.

    Attributes:
        peak: the most that all of them have had at one time, in MiB.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self.peak = 0.0

    def weigh(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        while not stop.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(self._site.memory().values()))


@pytest.fixture(scope="module")
def turned(site: Site, tmp_path_factory: pytest.TempPathFactory, figures: Figures) -> Iterator[SmallLoop]:
    """A loop that has spent its budget in three rounds."""
    samples = tmp_path_factory.mktemp("samples")
    small = set_up_at(site.owner(), site.grpc, None, samples, images_per_class=60, budget=60, batch=20)
    scales = Scales(site)
    with running(scales.weigh):
        small.turn_until(lambda status: status.phase == LoopStatus.EXHAUSTED, PATIENCE_SECONDS)
    figures.at_most(
        "memory of all pods of the small profile, while the loop turns", scales.peak / 1024, GOAL_GIB, "GiB"
    )
    yield small
    small.owner.close()


def test_the_loop_comes_to_its_end_and_its_champion_has_learnt(turned: SmallLoop) -> None:
    assert len(turned.ended_rounds()) == 3
    assert turned.status().champion_metrics.accuracy.value > 0.6  # four classes: chance is 0.25


def test_every_accepted_answer_is_in_the_dataset_once(turned: SmallLoop) -> None:
    labelled = turned.items("labelled AND split = TRAIN")
    assert len(labelled) == turned.status().labels_spent == 60
    assert all(list(item.accepted.annotations) == list(turned.truth(item.name)) for item in labelled)


def test_the_deployment_answers_at_the_door_of_the_cluster(turned: SmallLoop) -> None:
    (answer,) = turned.owner.predict(turned.status().deployment, [Path(turned.unused[0]).read_bytes()])
    assert answer.model_version == turned.status().champion


def test_every_run_was_trained_in_a_job_of_the_namespace(site: Site, turned: SmallLoop) -> None:
    events = site.kube.get("events", "--field-selector=reason=Completed,involvedObject.kind=Job")[
        "items"
    ]  # they outlive the Jobs
    trained = {
        event["involvedObject"]["name"] for event in events if event["involvedObject"]["name"].startswith("train-")
    }
    assert len(trained) >= len(turned.ended_rounds())
