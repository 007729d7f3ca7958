"""Trainings in Jobs with real pods: what a run says of each way in which a pod ends, and that a restarted service adopts what runs."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import world
from google.protobuf.duration_pb2 import Duration
from kube import until
from node_figures import Figures
from photographs import read_folder, write_digits
from site_on_node import Site
from vesta.waiting import wait_until
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    CreateSnapshotRequest,
    ItemAnnotations,
    Snapshot,
    Split,
)
from vesta_contracts.serving.v1 import CreateDeploymentRequest, Deployment, GetDeploymentRequest
from vesta_contracts.training.v1 import (
    CancelTrainingRunRequest,
    CreateRecipeRequest,
    CreateTrainingRunRequest,
    GetTrainingRunRequest,
    Recipe,
    TrainingRun,
)

pytestmark = pytest.mark.timeout(900)

ENDED = (TrainingRun.SUCCEEDED, TrainingRun.FAILED, TrainingRun.CANCELLED)
GOAL_SECONDS = 10
ABSENT = "vesta.local/absent:1"
PATIENCE = timedelta(minutes=4)
SMALL_TUNING = """
task: classification
summary: One epoch in batches of eight.
head: {}
finetune: {epochs: 1, batch_size: 8}
"""


class Trainer:
    """Starts runs that learn nothing: without labels they take some seconds."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._owner = site.owner()
        word = f"jobs-{new_id()[-8:]}"
        made = CreateProjectRequest(project_id=word, project=Project(display_name=word))
        self._project = self._owner.projects.CreateProject(made).name

    def start(self, **fields: Any) -> str:
        """The name of a new run."""
        wanted = TrainingRun(
            recipe=f"{self._project}/recipes/embedding", model=f"{self._project}/models/m{new_id()[-8:]}", **fields
        )
        request = CreateTrainingRunRequest(parent=self._project, training_run=wanted)
        return self._owner.training_runs.CreateTrainingRun(request).name

    def until(self, run: str, fits: Callable[[TrainingRun], bool]) -> TrainingRun:
        """The run, once it fits."""
        return wait_until(
            lambda: self._owner.training_runs.GetTrainingRun(GetTrainingRunRequest(name=run)), fits, deadline=PATIENCE
        )

    def end_of(self, run: str) -> TrainingRun:
        """The run, once it has ended."""
        return self.until(run, lambda now: now.state in ENDED)

    def cancel(self, run: str) -> None:
        """Stops it."""
        self._owner.training_runs.CancelTrainingRun(CancelTrainingRunRequest(name=run))

    def start_time(self, job: str) -> str:
        """When the process of a Job's pod started; empty where it has not."""
        pods = self._site.kube.get("pods", f"--selector=job-name={job}")["items"]
        states = [one["state"] for pod in pods for one in pod["status"].get("containerStatuses", ())]
        known = [state[kind]["startedAt"] for state in states for kind in ("running", "terminated") if kind in state]
        return min(known, default="")

    def running_indexes(self, job: str) -> set[str]:
        """Which of a Job's pods run, by their completion indexes."""
        pods = self._site.kube.get("pods", f"--selector=job-name={job}", "--field-selector=status.phase=Running")[
            "items"
        ]
        return {pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in pods}

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The Jobs of the namespace that train, by name."""
        found = self._site.kube.get("jobs", "--selector=app.kubernetes.io/component=trainer")["items"]
        return {job["metadata"]["name"]: job for job in found}


@pytest.fixture(scope="module")
def trainer(site: Site) -> Trainer:
    return Trainer(site)


def test_a_run_succeeds_in_a_job_that_starts_at_once(trainer: Trainer, figures: Figures) -> None:
    before = trainer.jobs().keys()
    run = trainer.start()
    assert until(lambda: bool(trainer.jobs().keys() - before))
    ((name, job),) = ((name, job) for name, job in trainer.jobs().items() if name not in before)
    assert until(lambda: bool(trainer.start_time(name)))
    created = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
    # Afterwards the pod does what a process of the local executor does.
    waited = datetime.fromisoformat(trainer.start_time(name)) - created
    figures.at_most("training Job: created to its process started", waited.total_seconds(), GOAL_SECONDS, "s")

    ended = trainer.end_of(run)
    assert ended.state == TrainingRun.SUCCEEDED, ended.error


def test_a_run_that_takes_longer_than_its_deadline_says_so(trainer: Trainer) -> None:
    ended = trainer.end_of(trainer.start(deadline=Duration(seconds=1)))
    assert ended.state == TrainingRun.FAILED
    assert "deadline" in ended.error


def test_the_service_may_die_while_a_run_trains_and_no_run_trains_twice(trainer: Trainer, site: Site) -> None:
    before = trainer.jobs().keys()
    run = trainer.start()
    assert until(lambda: bool(trainer.jobs().keys() - before))
    for pod in site.pods("training"):
        site.kube("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=false")
    ended = trainer.end_of(run)
    assert ended.state == TrainingRun.SUCCEEDED, ended.error
    assert len(trainer.jobs().keys() - before) == 1


@pytest.fixture
def without_memory(site: Site) -> Iterator[None]:
    """Jobs whose limit no Python with its libraries stays below."""
    little = [f"--set=training.jobs.resources.{name}.memory=48Mi" for name in ("requests", "limits")]
    site.upgrade(*little)
    yield
    site.upgrade()


@pytest.mark.usefixtures("without_memory")
def test_a_run_that_needs_more_memory_than_its_limit_says_so(trainer: Trainer) -> None:
    ended = trainer.end_of(trainer.start())
    assert ended.state == TrainingRun.FAILED
    assert "OOMKilled" in ended.error
    assert "48Mi" in ended.error


@pytest.fixture
def without_image(site: Site) -> Iterator[None]:
    """Jobs of an image that is nowhere."""
    site.upgrade(f"--set=training.jobs.image={ABSENT}")
    yield
    site.upgrade()


@pytest.mark.usefixtures("without_image")
def test_a_run_whose_image_is_missing_says_so_and_can_be_cancelled(trainer: Trainer) -> None:
    before = trainer.jobs().keys()
    run = trainer.start()
    waiting = trainer.until(run, lambda now: ABSENT in now.waiting_reason)
    assert "pull" in waiting.waiting_reason.lower()

    trainer.cancel(run)

    assert trainer.end_of(run).state == TrainingRun.CANCELLED
    assert until(lambda: trainer.jobs().keys() == before)


@pytest.fixture
def on_two_pods(site: Site) -> Iterator[None]:
    """Runs that fine-tune are spread over two pods."""
    site.upgrade("--set=training.jobs.nodes=2")
    yield
    site.upgrade()


@pytest.mark.usefixtures("on_two_pods")
def test_a_run_that_tunes_trains_on_two_pods_and_its_model_answers(
    trainer: Trainer, site: Site, tmp_path: Path
) -> None:
    owner = site.owner()
    digits = read_folder(write_digits(tmp_path / "digits", per_class_max=4))
    made = world.set_up(owner, None, digits, f"jobs-{new_id()[-8:]}", test_share=0.25)
    pool = [item.name for item in made.items if item.split != Split.SPLIT_TEST]
    labelled = [ItemAnnotations(item=name, annotations=made.truth(name)) for name in pool]
    owner.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=made.dataset.name, items=labelled))
    snapshot = owner.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=made.dataset.name, snapshot=Snapshot()))
    recipe = owner.recipes.CreateRecipe(
        CreateRecipeRequest(parent=made.project, recipe_id="tuned", recipe=Recipe(yaml=SMALL_TUNING))
    )
    before = trainer.jobs().keys()
    wanted = TrainingRun(snapshot=snapshot.name, recipe=recipe.name, model=f"{made.project}/models/tuned")
    run = owner.training_runs.CreateTrainingRun(CreateTrainingRunRequest(parent=made.project, training_run=wanted)).name
    assert until(lambda: bool(trainer.jobs().keys() - before))
    (job,) = trainer.jobs().keys() - before
    assert until(lambda: trainer.running_indexes(job) == {"0", "1"}, PATIENCE.total_seconds())

    ended = trainer.end_of(run)
    assert ended.state == TrainingRun.SUCCEEDED, ended.error
    assert not ended.finetune_skipped_reason

    deployment = owner.deployments.CreateDeployment(
        CreateDeploymentRequest(
            parent=made.project, deployment_id="tuned", deployment=Deployment(model_version=ended.model_version)
        )
    ).name
    wait_until(
        lambda: owner.deployments.GetDeployment(GetDeploymentRequest(name=deployment)),
        lambda now: now.stable_version == ended.model_version,
        deadline=PATIENCE,
    )
    (answer,) = owner.predict(deployment, [digits.pool[0].path.read_bytes()])
    assert answer.model_version == ended.model_version
