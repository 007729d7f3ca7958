"""Synthetic scenes for tests of detection: bright squares and dark discs on noise."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from memory_features import MemoryFeatureStore
from PIL import Image, ImageDraw
from vesta_common.media.model_input import SQUARE, InputFormat
from vesta_training.example import Pixels, Split
from vesta_training.progress import ignore_progress
from vesta_training.tasks.assignment import Assignment, Dependencies, Trained
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.registry import training_task

CONCEPTS = ("square", "disc")
WIDTH_PX, HEIGHT_PX = 240, 160


class Scenes:
    """Scenes with their boxes, by the hash of the image. The last ones have no object."""

    def __init__(self, count: int, empty_count: int = 1) -> None:
        self._images: dict[str, Image.Image] = {}
        self.asked: list[tuple[str, InputFormat]] = []
        self.scenes = [self._scene(number, is_empty=number >= count - empty_count) for number in range(count)]

    def pixels(self, sha256: str, declared: InputFormat = SQUARE) -> Pixels:
        self.asked.append((sha256, declared))
        size = (declared.width_px, declared.height_px)
        return np.asarray(self._images[sha256].resize(size, Image.Resampling.BILINEAR))

    def png(self, sha256: str) -> bytes:
        file = io.BytesIO()
        self._images[sha256].save(file, "PNG")
        return file.getvalue()

    def examples(self, train: int) -> tuple[BoxedExample, ...]:
        """Returns the first `train` scenes as training examples, and the others as test examples."""
        return tuple(
            BoxedExample(
                item=f"items/{number}",
                image_sha256=sha256,
                concepts=tuple(sorted(set(concepts))),
                split=Split.TRAIN if number < train else Split.TEST,
                control=number < train,
                boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4)
                / np.array([WIDTH_PX, HEIGHT_PX] * 2, np.float32),
                box_concepts=tuple(concepts),
                width_px=WIDTH_PX,
                height_px=HEIGHT_PX,
            )
            for number, (sha256, boxes, concepts) in enumerate(self.scenes)
        )

    def _scene(self, seed: int, *, is_empty: bool) -> tuple[str, list[tuple[int, ...]], list[str]]:
        generator = np.random.default_rng(seed)
        image = Image.fromarray(generator.integers(90, 150, (HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8))
        drawing = ImageDraw.Draw(image)
        boxes, concepts = [], []
        for column in () if is_empty else (0, 80, 160):
            side = int(generator.integers(36, 60))
            x, y = column + int(generator.integers(2, 18)), int(generator.integers(2, HEIGHT_PX - 62))
            concept = CONCEPTS[int(generator.integers(2))]
            if concept == "square":
                drawing.rectangle((x, y, x + side - 1, y + side - 1), fill=(250, 240, 60))
            else:
                drawing.ellipse((x, y, x + side - 1, y + side - 1), fill=(10, 10, 60))
            boxes.append((x, y, x + side, y + side))
            concepts.append(concept)
        sha256 = hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
        self._images[sha256] = image
        return sha256, boxes, concepts


def dependencies_of(scenes: Scenes, folder: Path, run: str) -> Dependencies:
    """Returns the dependencies of a training of scenes.

    Args:
        folder: kept between runs.
        run: the name of the folder of the run in it.
    """

    def no_weights_file(sha256: str) -> Path:
        raise LookupError(sha256)

    run_folder = folder / run
    run_folder.mkdir(exist_ok=True)
    return Dependencies(
        pixels=scenes.pixels,
        features=MemoryFeatureStore(),
        weights_file=no_weights_file,
        folder=folder,
        run_folder=run_folder,
        threads=1,
    )


def train(assignment: Assignment, dependencies: Dependencies, progress: Any = ignore_progress) -> Trained:
    """Trains with the recipe of the assignment."""
    return training_task(assignment.recipe.task).train(assignment, dependencies, progress)
