"""The default recipe on real photographs, if a folder of them is configured.

`VESTA_TEST_IMAGES` names a folder with `train` and `test`, each holding a folder of images for every concept.
"""

import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from memory_features import MemoryFeatureStore
from PIL import Image
from vesta_training.example import Example, Pixels, Split
from vesta_training.recipes.recipe import builtin_recipe
from vesta_training.tasks.assignment import Assignment, Dependencies
from vesta_training.tasks.classification.train import train

FOLDER = os.environ.get("VESTA_TEST_IMAGES", "")
TRAIN_MAX, TEST_MAX = 600, 300
ACCURACY_MIN = 0.75


@pytest.mark.skipif(not FOLDER, reason="VESTA_TEST_IMAGES names no folder of photographs")
def test_a_model_of_real_photographs_is_accurate_and_calibrated(tmp_path: Path) -> None:
    paths: dict[str, Path] = {}
    examples: list[Example] = []
    for split, limit in ((Split.TRAIN, TRAIN_MAX), (Split.TEST, TEST_MAX)):
        found = sorted((Path(FOLDER) / split.lower()).glob("*/*.jpg"))
        for index in np.random.default_rng(0).permutation(len(found))[:limit]:
            digest = sha256(found[index].read_bytes()).hexdigest()
            paths[digest] = found[index]
            examples.append(Example(str(found[index]), digest, (found[index].parent.name,), split))

    def pixels(digest: str) -> Pixels:
        with Image.open(paths[digest]) as image:
            image.draft("RGB", (256, 256))
            return np.asarray(image.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR, reducing_gap=2.0))

    trained = train(
        Assignment(
            recipe=builtin_recipe("classification"),
            examples=tuple(examples),
            concepts=tuple(sorted({one.concepts[0] for one in examples})),
        ),
        Dependencies(pixels, MemoryFeatureStore(), lambda sha256: Path(), tmp_path, tmp_path, threads=2),
    )

    assert trained.metrics is not None
    assert trained.metrics.accuracy.value > ACCURACY_MIN
    assert trained.metrics.calibration_error < 0.1
