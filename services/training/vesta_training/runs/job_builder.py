"""Builds the job of a claimed run from its recipe, its snapshot and the champion."""

from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format
from vesta_common.errors import NotFound
from vesta_common.resources.names import project_of
from vesta_contracts.datasets.v1 import (
    DatasetServiceStub,
    GetDatasetRequest,
    GetSnapshotRequest,
    GetTaxonomyRequest,
    Snapshot,
    SnapshotServiceStub,
    SplitStatistics,
    TaxonomyServiceStub,
)
from vesta_contracts.training.v1 import ModelVersion, TrainingRun

from vesta_training.hardware import CPU
from vesta_training.recipes.choices import NEWEST_PRETRAINED, NO_PRETRAINED
from vesta_training.recipes.recipe import Recipe, read_recipe
from vesta_training.recipes.recipe_book import RecipeBook
from vesta_training.runs.job import Job
from vesta_training.store import Store
from vesta_training.store.run_queue import ClaimedRun

TEST = "TEST"
RANDOM_SHARE_MIN = 0.9  # share of the test items; near-duplicates follow the split of their group instead of their hash


class Datasets:
    """The stubs of the datasets service."""

    def __init__(
        self, datasets: DatasetServiceStub, snapshots: SnapshotServiceStub, taxonomies: TaxonomyServiceStub
    ) -> None:
        self.datasets = datasets
        self.snapshots = snapshots
        self.taxonomies = taxonomies


@dataclass(frozen=True)
class Compute:
    """The compute resources of runs.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        threads: of each run.
        deadline_seconds: default deadline; 0 for none.
    """

    device: str = CPU
    threads: int = 1
    deadline_seconds: int = 0


DEFAULT_COMPUTE = Compute()


class JobBuilder:
    """Builds jobs.

    Args:
        work_folder: for files that are kept between runs.
    """

    def __init__(
        self, store: Store, recipes: RecipeBook, datasets: Datasets, work_folder: Path, compute: Compute
    ) -> None:
        self._store = store
        self._recipes = recipes
        self._datasets = datasets
        self._work_folder = work_folder
        self._compute = compute

    def build(self, claimed: ClaimedRun) -> Job:
        """Returns the job of a run. Raises the errors of the datasets service."""
        run = claimed.run
        concepts: tuple[str, ...] = ()
        digest, manifest_key, test_split_is_random = "", "", False
        if run.snapshot:
            snapshot = self._datasets.snapshots.GetSnapshot(GetSnapshotRequest(name=run.snapshot))
            dataset = self._datasets.datasets.GetDataset(GetDatasetRequest(name="/".join(run.snapshot.split("/")[:4])))
            taxonomy = self._datasets.taxonomies.GetTaxonomy(GetTaxonomyRequest(name=dataset.taxonomy))
            concepts = tuple(concept.id for concept in taxonomy.concepts)
            digest, manifest_key = snapshot.digest, snapshot.manifest_key
            test_split_is_random = _is_test_split_random(snapshot)
        champion, champion_missing = (ModelVersion(), "") if run.control_curve_pending else self._champion(run)
        measured = self._measured(run) if run.control_curve_pending else ModelVersion()
        recipe_name = run.recipe.rpartition("/")[2]
        recipe_yaml = claimed.recipe_yaml or self._recipes.get(run.recipe).yaml
        return Job(
            run=run.name,
            recipe_name=recipe_name,
            recipe_yaml=recipe_yaml,
            concepts=concepts,
            snapshot=run.snapshot,
            snapshot_digest=digest,
            manifest_key=manifest_key,
            champion=champion.name,
            champion_key=champion.onnx_key,
            champion_digest=champion.digest,
            test_split_is_random=test_split_is_random,
            seed=run.seed,
            work_folder=str(self._work_folder),
            device=self._compute.device,
            threads=self._compute.threads,
            champion_missing=champion_missing,
            pretrained_detector=self._pretrained(project_of(run.name), read_recipe(recipe_name, recipe_yaml)),
            deadline_seconds=int(run.deadline.ToTimedelta().total_seconds()) or self._compute.deadline_seconds,
            measured_key=measured.onnx_key,
            measured_digest=measured.digest,
        )

    def _pretrained(self, project: str, recipe: Recipe) -> str:
        """Returns the imported detector that a recipe starts from, as JSON; empty for none. Raises NotFound if the recipe names one."""
        wanted = recipe.detection.pretrained if recipe.detection is not None else NO_PRETRAINED
        if wanted == NO_PRETRAINED:
            return ""
        with self._store.postgres.transaction() as connection:
            if wanted == NEWEST_PRETRAINED:
                detector = self._store.pretrained_detectors.find_newest(connection, project)
            else:
                detector = self._store.pretrained_detectors.get(connection, f"{project}/pretrainedDetectors/{wanted}")
        return json_format.MessageToJson(detector, indent=None) if detector is not None else ""

    def _measured(self, run: TrainingRun) -> ModelVersion:
        """Returns the version that a run has created. Raises NotFound."""
        with self._store.postgres.transaction() as connection:
            return self._store.models.get_version(connection, run.model_version)

    def _champion(self, run: TrainingRun) -> tuple[ModelVersion, str]:
        """Returns the champion to compare with, empty for none, and why it is missing."""
        if not run.champion:
            return ModelVersion(), ""
        try:
            with self._store.postgres.transaction() as connection:
                return self._store.models.get_version(connection, run.champion), ""
        except NotFound:
            advice = "set model_version of the deployment to another version"
            return ModelVersion(), f"the champion {run.champion} was deleted; {advice}"


def _is_test_split_random(snapshot: Snapshot) -> bool:
    """Whether the test split is a random sample: its items were assigned by content hash and not by the caller."""
    test = next((split for split in snapshot.statistics.splits if split.split == TEST), SplitStatistics())
    return bool(test.item_count and test.hash_assigned_count >= RANDOM_SHARE_MIN * test.item_count)
