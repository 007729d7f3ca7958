"""The interface of a task type in the demo."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from photographs import Photograph, Photographs
from PIL import Image
from samples import Download
from vesta_contracts.annotation.v1 import Review, Task
from vesta_contracts.common.v1 import Annotation, Prediction
from vesta_contracts.training.v1 import Estimate, Metrics

Annotations = Sequence[Annotation]


@dataclass(frozen=True)
class Answer:
    """What a simulated annotator answers, and how many mistakes it has."""

    annotations: list[Annotation]
    mistake_count: int


class DemoTask(ABC):
    """How the demo gets, labels, measures and draws images of a task type. Stateless.

    Attributes:
        recipe: the id of the default recipe.
        quick_changes: values of this recipe by their path, with which a demo takes some minutes.
        metric: the primary metric in words.
        instructions: for annotators.
        error_rates: the simulated errors of annotators, in words.
        unit: what an annotator draws, in plural; empty if the cost of a label is that of an image.
    """

    recipe: ClassVar[str]
    quick_changes: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    metric: ClassVar[str]
    instructions: ClassVar[str]
    error_rates: ClassVar[str]
    unit: ClassVar[str]

    @abstractmethod
    def find_data(self, folder: Path) -> tuple[str, Photographs] | None:
        """Returns the name of the format and the images of a folder of the user; None if it has no annotations of this task type.

        Raises:
            ValueError: an annotation file is invalid, or the folder has another layout.
        """

    @abstractmethod
    def samples(self, folder: Path, report: Callable[[str], None], download: Download) -> Photographs:
        """Returns images for a demo without data, kept in `folder`, and reports what they are.

        Args:
            download: the photographs, for task types that download some.
        """

    @abstractmethod
    def quality(self, metrics: Metrics) -> Estimate:
        """Returns the primary metric."""

    @abstractmethod
    def answer(self, photograph: Photograph, concepts: Sequence[str], draw: random.Random) -> Answer:
        """Returns the answer of an annotator, with errors at the rates of `error_rates`."""

    @abstractmethod
    def review(self, task: Task, truth: Annotations) -> Review:
        """Returns the decision of a reviewer, who knows the truth, about a task on which the annotators disagree."""

    @abstractmethod
    def is_right(self, truth: Annotations, found: Annotations) -> bool:
        """Whether annotations say the same as the true ones."""

    @abstractmethod
    def predicted(self, prediction: Prediction) -> list[Annotation]:
        """Returns what a prediction says as annotations, without those below their threshold."""

    @abstractmethod
    def quality_without_training(self, drawn: Sequence[Annotations], test: Sequence[Annotations]) -> float | None:
        """Returns the primary metric of the best constant prediction if nothing can be learned from the drawn labels; otherwise None."""

    @abstractmethod
    def draw(self, image: Image.Image, truth: Annotations, found: Annotations) -> None:
        """Draws what is true and what was predicted into an image."""
