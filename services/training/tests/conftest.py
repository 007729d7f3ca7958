"""Fixtures: training images, the exported backbone, and the service with a real database and object store."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from memory_features import MemoryFeatureStore
from PIL import Image
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits
from training_service import OneDataset, OneSnapshot, OneTaxonomy, Scripted, SomeDeployments, Training
from vesta_common.clock import ManualClock
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres
from vesta_contracts.datasets.v1 import DatasetServiceStub, SnapshotServiceStub, TaxonomyServiceStub
from vesta_contracts.serving.v1 import DeploymentServiceStub
from vesta_local.testing import identity_of
from vesta_training.api.model_service import ModelService
from vesta_training.api.pretrained_detector_service import PretrainedDetectorService
from vesta_training.api.recipe_service import RecipeService
from vesta_training.api.study_service import StudyService
from vesta_training.api.training_run_service import TrainingRunService
from vesta_training.example import Array, Example, Pixels, Split
from vesta_training.features.backbone import Backbone, find_backbone
from vesta_training.features.features import extract_features
from vesta_training.features.runtime import ModelRuntime
from vesta_training.models.deployments import Deployments
from vesta_training.models.export import export_backbone
from vesta_training.models.file_remover import FileRemover
from vesta_training.recipes.recipe import builtin_recipe
from vesta_training.recipes.recipe_book import RecipeBook
from vesta_training.runs.job_builder import Datasets
from vesta_training.settings import Settings
from vesta_training.store import Store
from vesta_training.tasks.assignment import Dependencies
from vesta_training.worker import Worker

DIGITS_USED = 200


def no_weights_file(sha256: str) -> Path:
    raise LookupError(sha256)


class Digits:
    """Scikit-learn's scans of handwritten digits, as images of the model input size, with artificial hashes."""

    def __init__(self) -> None:
        scans = load_digits()
        self._scans = scans.images[:DIGITS_USED]
        self.labels = [f"digit-{label}" for label in scans.target[:DIGITS_USED]]
        self.concepts = tuple(sorted(set(self.labels)))
        self.sha256s = [f"{index:064x}" for index in range(DIGITS_USED)]
        self.asked: list[str] = []

    def pixels(self, sha256: str) -> Pixels:
        self.asked.append(sha256)
        scan = self._scans[int(sha256, 16)]
        small = Image.fromarray(np.rint(scan / 16 * 255).astype(np.uint8))
        return np.asarray(small.resize((256, 256), Image.Resampling.BICUBIC).convert("RGB"))

    def examples(self, train: int, test: int, *, control_every: int = 2) -> tuple[Example, ...]:
        """Returns the first `train` digits as training examples, and the last `test` digits as test examples."""
        numbers = [*range(train), *range(DIGITS_USED - test, DIGITS_USED)]
        return tuple(
            Example(
                item=f"items/{number}",
                image_sha256=self.sha256s[number],
                concepts=(self.labels[number],),
                split=Split.TRAIN if number < train else Split.TEST,
                control=number < train and number % control_every == 0,
            )
            for number in numbers
        )


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_matrices() -> Iterator[None]:
    """Limits BLAS to one thread, as `train` does, because tests run in parallel."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def digits() -> Digits:
    return Digits()


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return find_backbone(builtin_recipe("classification").backbone, no_weights_file)


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backbones")


@pytest.fixture(scope="session")
def backbone_path(backbone: Backbone, backbone_folder: Path) -> Path:
    return export_backbone(backbone, backbone_folder)


@pytest.fixture(scope="session")
def kept_features(digits: Digits, backbone: Backbone, backbone_path: Path) -> MemoryFeatureStore:
    """The digits' embeddings, computed once."""
    store = MemoryFeatureStore()
    extract_features(
        digits.sha256s,
        model=lambda: ModelRuntime(backbone_path),
        embedding_digest=backbone.digest,
        store=store,
        pixels=digits.pixels,
        threads=2,
    )
    return store


@pytest.fixture(scope="session")
def embeddings(digits: Digits, backbone: Backbone, kept_features: MemoryFeatureStore) -> Array:
    """`(N, D)` embeddings of all digits."""
    known = kept_features.get_many(backbone.digest, digits.sha256s)
    return np.stack([known[sha256] for sha256 in digits.sha256s])


@pytest.fixture
def dependencies(
    digits: Digits, kept_features: MemoryFeatureStore, backbone_path: Path, tmp_path: Path
) -> Dependencies:
    return Dependencies(
        pixels=digits.pixels,
        features=kept_features,
        weights_file=no_weights_file,
        folder=backbone_path.parent,
        run_folder=tmp_path,
        threads=1,
    )


@pytest.fixture
def training(service_settings: Callable[[str], dict[str, Any]], tmp_path: Path) -> Iterator[Training]:
    settings = Settings(
        **service_settings("training"),
        datasets_address="127.0.0.1:1",
        serving_address="127.0.0.1:1",
        work_folder=str(tmp_path),
    )
    postgres = Postgres(settings.postgres_url, settings.postgres_schema).open()
    postgres.migrate("vesta_training")
    clock = ManualClock()
    store, objects = Store(postgres, clock), ObjectStore.of(settings)
    snapshots, deployments = OneSnapshot(), SomeDeployments()
    peer = Server(identity_of("peers"), "127.0.0.1:0", [snapshots, OneDataset(), OneTaxonomy(), deployments])
    peer.start()
    channel = open_channel(peer.address, identity_of("training"))
    datasets = Datasets(DatasetServiceStub(channel), SnapshotServiceStub(channel), TaxonomyServiceStub(channel))
    book, executor = RecipeBook(store), Scripted(objects)
    asked = Deployments(DeploymentServiceStub(channel))
    servicers = [
        RecipeService(store, book),
        TrainingRunService(store, book, datasets, []),
        StudyService(store, book, datasets, []),
        ModelService(store, objects, asked),
        PretrainedDetectorService(store, objects, settings.work_folder),
    ]
    server = Server(identity_of("training"), "127.0.0.1:0", servicers)
    server.start()
    with open_channel(server.address, identity_of("gateway")) as outside:
        yield Training(
            store,
            clock,
            executor,
            snapshots,
            deployments,
            lambda store, **fields: Worker(store, objects, executor, book, datasets, settings.work_folder, **fields),
            objects,
            FileRemover(store, objects, asked),
            outside,
        )
    server.stop()
    channel.close()
    peer.stop()
    objects.close()
    postgres.close()
