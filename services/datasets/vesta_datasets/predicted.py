"""Which labels a model gives an item. Serving has decided which concepts are predicted; nothing is decided again here. Pure."""

from collections.abc import Sequence

from vesta_contracts.common.v1 import ConceptScore, ImageScores


def labels_of(scores: ImageScores, *, multi_label: bool) -> Sequence[ConceptScore]:
    """The labels that people are shown, best first.

    Args:
        multi_label: the answer is every concept that the model predicts under its deployment's thresholds, perhaps none;
            else the best concept, also where its score is too low for the deployment to predict it: a person decides.
    """
    return [found for found in scores.scores if found.predicted] if multi_label else scores.scores[:1]


def is_multi_label(scores: ImageScores) -> bool:
    """Whether they are a multi-label model's: each concept has a threshold."""
    return any(found.HasField("threshold") for found in scores.scores)
