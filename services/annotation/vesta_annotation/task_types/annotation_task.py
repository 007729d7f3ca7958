"""The interface of a task type in this service."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vesta_contracts.annotation.v1 import Submission
from vesta_contracts.common.v1 import Annotation

Value = bytes | Sequence[Annotation]
"""What answers are compared by: their keys if the task type has keys, otherwise their annotations."""


@dataclass(frozen=True)
class Consensus:
    """What several answers to one task agree on.

    Attributes:
        annotations: what more than half of the annotators state.
        annotators: those whose whole answers agree with it.
        disputed: what neither more nor less than half of the annotators state; a reviewer must decide. Empty if the annotations are the
            decision.
    """

    annotations: Sequence[Annotation]
    annotators: Sequence[str]
    disputed: Sequence[Annotation] = ()


class AnnotationTask(ABC):
    """How answers of a task type are compared. Stateless."""

    @abstractmethod
    def key(self, annotations: Sequence[Annotation]) -> bytes | None:
        """Returns a key that is equal for answers that agree; None if answers of this task type have no key."""

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
