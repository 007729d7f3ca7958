"""The interface of a task type in this service."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.training.v1 import Estimate, Metrics


class LoopTask(ABC):
    """How a Loop trains and measures models of a task type. Stateless.

    Attributes:
        recipe: the id of the default training recipe.
        concepts_min: the number of concepts that training data must have at least.
        metric: the primary metric in words, for messages.
        concept_metric: what `Comparison.concepts` compares, in words.
        draw_seconds: how long a person needs to draw an object; None for labels of whole images.
    """

    recipe: ClassVar[str]
    concepts_min: ClassVar[int]
    metric: ClassVar[str]
    concept_metric: ClassVar[str]
    draw_seconds: ClassVar[float | None] = None

    @abstractmethod
    def quality(self, metrics: Metrics) -> Estimate:
        """Returns the primary metric, by which models are compared."""

    @abstractmethod
    def is_labelled(self, annotations: Iterable[Annotation]) -> bool:
        """Whether accepted annotations label an item: no others than those of this task type, or at least one of it."""

    @abstractmethod
    def is_correct(self, task: Task) -> bool | None:
        """Returns whether the pre-annotations of a decided task equal its accepted annotations.

        None if they cannot be compared: no model made a prediction, or the answer has no annotations of this task type.
        """
