"""The interface of the modules of this package: what serving needs to know about a task type."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from vesta_common.errors import InvalidArgument, Violation
from vesta_common.media.model_input import Placement
from vesta_common.media.predictions import Floats
from vesta_contracts.common.v1 import ConceptScore, Prediction

from vesta_serving.task_types.policy import Policy

ImageOutputs = Mapping[str, NDArray[Any]]
"""The outputs of a model for one image, by name."""


@dataclass(frozen=True)
class Vocabulary:
    """The meaning of a model's outputs.

    Attributes:
        model_version: the version's name.
        concepts: `(C,)` in the order of the outputs; empty for a model that only computes embeddings.
        thresholds: `(C,)` probability from which each concept is predicted; empty for a model that predicts its best concept.
        objects_max: the maximum number of objects in an output; 0 if unknown.
    """

    model_version: str
    concepts: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    objects_max: int = 0

    def applied_thresholds(self, policy: Policy) -> list[float]:
        """Returns the threshold of each concept: that of the policy, or else that of the version."""
        own = zip(self.concepts, self.thresholds, strict=True)
        return [policy.thresholds.get(concept, threshold) for concept, threshold in own]


class ServingTask(ABC):
    """What predictions of a task type are.

    No other module decides what is predicted. The prediction contains the decision, so that Predict, the prediction log, the items'
    scores, selection, pre-annotations and observations all agree.
    """

    outputs: ClassVar[tuple[str, ...]]
    """The names of the model's outputs from which predictions are made."""
    compares_views: ClassVar[bool] = False
    """Whether `disagreement` compares what the model predicts for an image and for its mirror image."""

    @abstractmethod
    def prediction(
        self, outputs: ImageOutputs, vocabulary: Vocabulary, policy: Policy, placement: Placement
    ) -> Prediction:
        """Returns the prediction for one image under a deployment's policy, without the time.

        Args:
            outputs: of the model for this image, those of the task type.
            placement: of the model's input on the image; `UNREAD` if the outputs were computed from a stored embedding.
        """

    def disagreement(
        self,
        outputs: ImageOutputs,  # noqa: ARG002
        mirrored: ImageOutputs,  # noqa: ARG002
        vocabulary: Vocabulary,  # noqa: ARG002
        policy: Policy,  # noqa: ARG002
        placement: Placement,  # noqa: ARG002
        width_px: int,  # noqa: ARG002
    ) -> str:
        """Returns how the prediction for the mirror image differs; empty if it does not.

        Args:
            mirrored: the outputs for the input of the model with its columns in reverse order.
            width_px: of the input.
        """
        return ""

    def check_thresholds(self, thresholds: Mapping[str, float], vocabulary: Vocabulary) -> None:
        """Checks a deployment's thresholds per concept against its desired model version.

        Raises:
            InvalidArgument: THRESHOLD_CONCEPT_UNKNOWN, a threshold is for a concept that the version does not have;
                MODEL_NOT_MULTI_LABEL, the task type has no thresholds per concept.
        """
        unknown = sorted(set(thresholds) - set(vocabulary.concepts))
        if unknown:
            raise InvalidArgument(
                f"{vocabulary.model_version} does not have the concept {unknown[0]!r}; its concepts: "
                f"{', '.join(vocabulary.concepts)[:1000]}",
                reason="THRESHOLD_CONCEPT_UNKNOWN",
                violations=[
                    Violation(f"deployment.uncertainty.thresholds.{concept}", "is not a concept of the model version")
                    for concept in unknown[:10]
                ],
            )


def concept_scores(
    scores: Floats, predicted: NDArray[np.bool_], thresholds: Floats, vocabulary: Vocabulary
) -> list[ConceptScore]:
    """Returns the scores of the concepts, best first.

    Args:
        scores, predicted, thresholds: `(C,)` each; whether each concept is predicted, and the score from which it is.
    """
    return [
        ConceptScore(
            concept=vocabulary.concepts[index],
            score=float(scores[index]),
            predicted=bool(predicted[index]),
            threshold=float(thresholds[index]),
        )
        for index in np.argsort(-scores, kind="stable").tolist()
    ]


def check_no_thresholds(thresholds: Mapping[str, float], vocabulary: Vocabulary) -> None:
    """Rejects thresholds per concept, for task types that have none.

    Raises:
        InvalidArgument: MODEL_NOT_MULTI_LABEL.
    """
    if thresholds:
        raise InvalidArgument(
            f"{vocabulary.model_version} is not a model of several labels or of objects and has no thresholds "
            "per concept; set score_threshold",
            reason="MODEL_NOT_MULTI_LABEL",
            violations=[
                Violation("deployment.uncertainty.thresholds", "is only for models of several labels or of objects")
            ],
        )
