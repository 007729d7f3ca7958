"""The interface of a task type in this service."""

from abc import ABC, abstractmethod
from typing import ClassVar

from vesta_contracts.annotation.v1 import Task


class LoopTask(ABC):
    """How a Loop trains and measures models of a task type. Stateless.

    Attributes:
        recipe: the id of the default training recipe.
        concepts_min: the number of concepts that training data must have at least.
    """

    recipe: ClassVar[str]
    concepts_min: ClassVar[int]

    @abstractmethod
    def is_correct(self, task: Task) -> bool | None:
        """Returns whether the pre-annotations of a decided task equal its accepted annotations.

        None if they cannot be compared: no model made a prediction, or the answer has no annotations of this task type.
        """
