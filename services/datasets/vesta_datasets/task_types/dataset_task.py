"""The interface of a task type in this service."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

from vesta_common.media.annotation_cost import LOOK_SECONDS
from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_datasets.task_types.uncertainty import Answers, Mask, Uncertainty


class DatasetTask(ABC):
    """How predictions of a task type select items and help annotators. Stateless.

    Attributes:
        typical_start: whether the first items to label, before there is a model, are typical ones; otherwise they are random.
    """

    typical_start: ClassVar[bool] = True

    @abstractmethod
    def uncertainty(
        self,
        predictions: Sequence[Prediction | None],
        concepts: Sequence[str],
        held: Mask | None = None,
        answers: Answers = (),
    ) -> Uncertainty:
        """Returns the uncertainty of N items.

        Args:
            predictions: of each item, of whichever model version; None without a prediction, which is as uncertain as possible.
            concepts: at least one. Scores and objects of others are ignored.
            held: `(N,)`, whether the item is labelled, or in a task already; none is if None.
            answers: the concepts of the accepted annotations of each item, as often as they occur; None for an item that is not labelled,
                or has too many. Empty if unknown.
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

    def annotation_seconds(self, prediction: Prediction) -> float:  # noqa: ARG002 - of an image label, it does not depend on it
        """Returns the expected time that a person needs to annotate an item who sees its pre-annotations."""
        return LOOK_SECONDS
