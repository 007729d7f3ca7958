"""The interface of a task type in this service."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

from vesta_common.media.predictions import Floats
from vesta_contracts.common.v1 import Annotation, ConceptScore, Prediction

Scores = Sequence[ConceptScore]


class DatasetTask(ABC):
    """How predictions of a task type select items and help annotators. Stateless.

    Attributes:
        is_distribution: whether the probabilities of an item add to 1.
    """

    is_distribution: ClassVar[bool]

    @abstractmethod
    def probabilities(self, items: Sequence[Scores], concepts: Sequence[str]) -> Floats:
        """Returns `(N, C)` probabilities in `[0, 1]` for the strategies of selection.

        Args:
            items: N items, each with its scores by concept, of whichever model version; empty if it has none.
            concepts: C concepts. Scores of others are ignored.
        """

    @abstractmethod
    def margin_uncertainty(self, probabilities: Floats) -> Floats:
        """Returns `(N,)` values in `[0, 1]` by the distance of each item from another prediction: 0 is certain, 1 is undecided.

        Args:
            probabilities: `(N, C)`.
        """

    @abstractmethod
    def entropy_uncertainty(self, probabilities: Floats) -> Floats:
        """Returns the entropy of the predictions of each item divided by its maximum, `(N,)` in `[0, 1]`.

        Args:
            probabilities: `(N, C)`.
        """

    def imported(self, annotations: Sequence[Annotation]) -> Sequence[Annotation]:
        """Returns the annotations of an archive as annotations of this task type, as far as they can be converted."""
        return annotations

    @abstractmethod
    def labels(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        """Returns the distinct concepts that label an item with these annotations, sorted."""

    @abstractmethod
    def other_concepts(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        """Returns the distinct concepts of annotations that do not label the item, sorted. An item with only such is unlabelled."""

    @abstractmethod
    def pre_annotations(self, prediction: Prediction) -> list[Annotation]:
        """Returns the prediction as annotations, for annotators to confirm or correct, best first."""
