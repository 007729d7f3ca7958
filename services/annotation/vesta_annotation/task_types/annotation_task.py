"""The interface of a task type in this service."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from vesta_contracts.annotation.v1 import Disagreement, Submission
from vesta_contracts.common.v1 import Annotation

Value = TypeVar("Value")
"""What answers are compared by."""


@dataclass(frozen=True)
class Consensus:
    """What several answers to one task agree on.

    Attributes:
        annotations: what more than half of the annotators state.
        annotators: those whose whole answers agree with it.
        disagreements: the objects that the annotators saw differently, the disputed ones first.
    """

    annotations: Sequence[Annotation]
    annotators: Sequence[str]
    disagreements: Sequence[Disagreement] = ()

    @property
    def is_disputed(self) -> bool:
        """Whether no majority decides on one of the objects, so that a reviewer must; otherwise, the annotations are the decision."""
        return any(disagreement.disputed for disagreement in self.disagreements)


OBJECT_TASKS_MAX = 300
"""The number of tasks that the agreement on objects is estimated from: to match the objects of all would take minutes."""


class AnnotationTask(ABC, Generic[Value]):
    """How answers of a task type are compared. Stateless.

    Attributes:
        tasks_measured_max: the number of tasks from which agreement is estimated; None for all.
    """

    tasks_measured_max: ClassVar[int | None] = None

    def key(self, annotations: Sequence[Annotation]) -> bytes | None:  # noqa: ARG002
        """Returns a key that is equal for answers that agree; None if answers of this task type have no key."""
        return None

    @abstractmethod
    def value(self, annotations: Sequence[Annotation]) -> Value:
        """Returns what an answer is compared by. If the task type has keys, values are equal for equal keys."""

    @abstractmethod
    def consensus(self, answers: Sequence[Submission]) -> Consensus | None:
        """Returns what the answers to one task agree on, of at least one answer; None if they agree on nothing."""

    @abstractmethod
    def agree(self, one: Value, other: Value) -> bool:
        """Whether two answers state the same."""

    @abstractmethod
    def alpha(self, units: Iterable[Sequence[Value]]) -> float | None:
        """Returns Krippendorff's alpha; None for fewer than two tasks.

        Args:
            units: the answers to each task, at least two per task.
        """

    def parts(self, value: Value) -> Mapping[str, Value]:  # noqa: ARG002
        """Returns the part of an answer about each concept that it states; empty if agreement is not measured by concept."""
        return {}

    def count_objects(self, value: Value) -> int:  # noqa: ARG002
        """Returns the number of objects or labels of an answer."""
        return 0

    def count_matched(self, one: Value, other: Value) -> int:  # noqa: ARG002
        """Returns the number of objects or labels on which two answers agree."""
        return 0
