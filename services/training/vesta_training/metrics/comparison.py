"""Compares a challenger with the champion on the same items. The gate of the loop decides by the result."""

import numpy as np
from vesta_contracts.training.v1 import Comparison, ConceptComparison, Estimate

from vesta_training.intervals import paired_difference
from vesta_training.metrics.evaluation import measure
from vesta_training.metrics.predictions import Labels, Predictions
from vesta_training.recipes.choices import EvaluationChoices


def compare(
    challenger: Predictions, champion: Predictions, choices: EvaluationChoices, *, champion_name: str, seed: int
) -> Comparison:
    """Returns the differences (challenger minus champion) and the metrics of the champion on the same items.

    Raises:
        ValueError: the items or concepts differ.
    """
    overall, concepts = differences(challenger, champion, choices, seed=seed)
    return Comparison(
        champion=champion_name,
        champion_metrics=measure(champion, choices, seed=seed),
        difference=overall,
        concepts=concepts,
    )


def differences(
    challenger: Predictions, champion: Predictions, choices: EvaluationChoices, *, seed: int
) -> tuple[Estimate, list[ConceptComparison]]:
    """Returns the differences (challenger minus champion), overall and by concept, with paired 95 % intervals.

    The intervals of the concepts hold jointly, because with many concepts some seem worse by chance. The challenger is worse in a
    concept if `high < 0`. A concept without items has no difference. Both models must have predictions for the same items and the
    same concepts; `predictions.over_concepts` converts them.

    Raises:
        ValueError: the items or concepts differ, or there are none.
    """
    if challenger.items != champion.items or challenger.concepts != champion.concepts:
        raise ValueError("a comparison requires predictions of both models for the same items and concepts")
    generator = np.random.default_rng(seed)

    def difference(first: Labels, second: Labels, intervals_together: int = 1) -> Estimate:
        wins, losses = int((first & ~second).sum()), int((second & ~first).sum())
        return paired_difference(
            wins,
            losses,
            len(first) - wins - losses,
            draws=choices.bootstrap_draws,
            generator=generator,
            intervals_together=intervals_together,
        )

    overall = difference(challenger.right, champion.right)
    concepts = []
    for index, concept in enumerate(challenger.concepts):
        has_concept = challenger.truth[:, index]
        compared = ConceptComparison(concept=concept, item_count=int(has_concept.sum()))
        if compared.item_count:
            recall = difference(
                challenger.predicted[has_concept, index],
                champion.predicted[has_concept, index],
                len(challenger.concepts),
            )
            compared.difference.CopyFrom(recall)
        concepts.append(compared)
    return overall, concepts
