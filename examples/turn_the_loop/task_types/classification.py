"""Classification in the demo: one class per photograph."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from photographs import Photograph, Photographs, label, read_folder
from PIL import Image
from samples import Download, find_samples
from vesta_contracts.annotation.v1 import Review, Task
from vesta_contracts.common.v1 import Annotation, Prediction
from vesta_contracts.training.v1 import Estimate, Metrics

from task_types.demo_task import Annotations, Answer, DemoTask
from task_types.marks import RIGHT, WRONG, caption

MISTAKE_SHARE = 0.05


class Classification(DemoTask):
    """Photographs of clothing, or the scanned digits where they cannot be downloaded."""

    recipe = "classification"
    metric = "accuracy"
    instructions = "What does the photograph show?"
    error_rates = f"{MISTAKE_SHARE:.0%} of the answers name another class"
    unit = ""

    def find_data(self, folder: Path) -> tuple[str, Photographs]:
        return "class folders", read_folder(folder)

    def samples(self, folder: Path, report: Callable[[str], None], download: Download) -> Photographs:
        return find_samples(folder, report, download.url, download.digest)

    def quality(self, metrics: Metrics) -> Estimate:
        return metrics.accuracy

    def answer(self, photograph: Photograph, concepts: Sequence[str], draw: random.Random) -> Answer:
        concept = photograph.label
        if draw.random() >= MISTAKE_SHARE:
            return Answer([label(concept)], 0)
        return Answer([label(draw.choice([other for other in concepts if other != concept]))], 1)

    def review(self, task: Task, truth: Annotations) -> Review:  # noqa: ARG002
        return Review(decision=Review.CORRECT, annotations=truth)

    def is_right(self, truth: Annotations, found: Annotations) -> bool:
        return [one.concept for one in truth] == [one.concept for one in found]

    def predicted(self, prediction: Prediction) -> list[Annotation]:
        return [label(score.concept) for score in prediction.scores if score.predicted]

    def quality_without_training(self, drawn: Sequence[Annotations], test: Sequence[Annotations]) -> float | None:
        """The share of test items of the only class."""
        classes = {one.concept for truth in drawn for one in truth}
        if len(classes) > 1:
            return None
        return sum({one.concept for one in truth} == classes for truth in test) / len(test)

    def draw(self, image: Image.Image, truth: Annotations, found: Annotations) -> None:
        """Writes the true and the predicted class below each other."""
        names = [", ".join(one.concept for one in some) or "nothing" for some in (truth, found)]
        colour = RIGHT if self.is_right(truth, found) else WRONG
        caption(image, (0, 0), f"is {names[0]}", "white")
        caption(image, (0, 1), f"predicted {names[1]}", colour)
