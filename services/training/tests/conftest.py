"""Pictures to learn from, and the backbone exported once for all tests."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits
from vesta_training.assignment import Seams
from vesta_training.backbone import Backbone, find_backbone
from vesta_training.example import Array, Example, Pixels, Split
from vesta_training.export import export_backbone
from vesta_training.features import MemoryFeatureStore, extract_features
from vesta_training.recipe import builtin_recipe
from vesta_training.runtime import ModelRuntime

DIGITS_USED = 200


def no_weights_file(sha256: str) -> Path:
    raise LookupError(sha256)


class Digits:
    """Scikit-learn's scans of handwritten digits, as images of the size that models get; made-up hashes name them."""

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
        """The first `train` digits to learn from, the last `test` ones to test on."""
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
    """As `train` does: tests run beside others."""
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
    """`(N, D)` of all digits."""
    known = kept_features.get_many(backbone.digest, digits.sha256s)
    return np.stack([known[sha256] for sha256 in digits.sha256s])


@pytest.fixture
def seams(digits: Digits, kept_features: MemoryFeatureStore, backbone_path: Path, tmp_path: Path) -> Seams:
    return Seams(
        pixels=digits.pixels,
        features=kept_features,
        weights_file=no_weights_file,
        folder=backbone_path.parent,
        run_folder=tmp_path,
        threads=1,
    )
