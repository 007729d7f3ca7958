"""How accuracy grows with labels drawn at random: the baseline against which choosing what to label is measured.

Labels drawn at random are those of the control arm and, where the test split was dealt at random, its labels too. So that the few there
are tell most, heads learn from both, and the test items are cross-fitted: each is predicted only by heads that have not seen it. These
heads are thrown away; nothing that is deployed learns from a test item. A test split that came apart from the other images is no sample
of them: learning from it would make random choice look better than it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from vesta_contracts.training.v1 import Estimate, LearningCurvePoint

from vesta_training.errors import TooFewLabelsError
from vesta_training.example import Array
from vesta_training.heads.linear_head import Head, Labels, fit_head
from vesta_training.intervals import Z_95, wilson
from vesta_training.progress import untold
from vesta_training.recipes.recipe import HeadChoices, Task

LABELS_FIRST = 10
LABELS_MAX = 1000
"""Where the curve ends: more labels cost much time and change little."""
GROWTH = 2
FOLDS = 5
ITEMS_MAX = 5000
"""Of the test split: more make no interval narrower that the labels do not make wide."""

Correct = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """What heads that learned from labels drawn at random predict rightly.

    Attributes:
        label_counts: `(S,)`, rising.
        items: `(M,)`: which rows of the test split were predicted.
        correct: `(D, S, M)`: whether test item m is predicted rightly after learning from `label_counts[s]` labels, in draw d.
    """

    label_counts: tuple[int, ...]
    items: npt.NDArray[np.int64]
    correct: Correct

    @property
    def points(self) -> list[LearningCurvePoint]:
        """Accuracy at each count, with the 95 % interval of what other labels and other test items might have shown."""
        accuracies = self.correct.mean(axis=2)
        spreads = self.label_spreads()
        return [
            LearningCurvePoint(label_count=count, accuracy=_estimate(float(mean), spread, self.correct.shape[2]))
            for count, mean, spread in zip(self.label_counts, accuracies.mean(axis=0), spreads, strict=True)
        ]

    def label_spreads(self) -> Array:
        """`(S,)` standard deviations of accuracy between different sets of labels of one size.

        Parts of one set have much in common, so that draws agree more than labels drawn anew would: the finite population
        correction makes up for that, and where hardly anything was left to draw, the spread is the one before.
        """
        if len(self.correct) < 2:
            return np.zeros(len(self.label_counts), dtype=np.float32)
        variances = self.correct.mean(axis=2).var(axis=0, ddof=1)
        left = 1 - np.array(self.label_counts) / (self.label_counts[-1] * FOLDS / (FOLDS - 1))
        spreads = np.sqrt(variances / np.maximum(left, 1 / FOLDS))
        spreads[-1] = max(spreads[-1], spreads[-2]) if len(spreads) > 1 else spreads[-1]
        smoothed = np.sqrt(np.convolve(np.pad(spreads**2, 1, mode="edge"), np.ones(3) / 3, mode="valid"))
        return smoothed.astype(np.float32)


def curve_counts(label_count: int) -> list[int]:
    """Where the curve is measured: 10, 20, 40 … and all, at most 1,000. Empty for fewer than 10 labels."""
    end = min(label_count, LABELS_MAX)
    if end < LABELS_FIRST:
        return []
    counts = [LABELS_FIRST]
    while counts[-1] * GROWTH < end:
        counts.append(counts[-1] * GROWTH)
    return counts if counts[-1] == end else [*counts, end]


def learning_curve(
    control: tuple[Array, Labels],
    test: tuple[Array, Labels],
    concepts: tuple[str, ...],
    task: Task,
    choices: HeadChoices,
    *,
    learns_from_test: bool,
    draws: int,
    seed: int,
    measured: Callable[[int, int], None] = untold,
) -> LearningCurve | None:
    """Fits heads on growing parts of the labels drawn at random. They take the default strength: labels are compared, not tuning.

    Args:
        control: `(N, D)` embeddings and `(N, C)` labels of the control arm's training items.
        test: `(T, D)` and `(T, C)` of the test split; 5,000 of them are predicted at most.
        learns_from_test: whether the test split is a random sample of the same images.
        draws: how often the folds are dealt and the labels ordered anew; without folds five times as often.
        measured: called after each fit with its number and how many there will be.

    Returns:
        None where fewer than ten labels are there to learn from.
    """
    fixed = choices.model_copy(update={"strengths": (choices.strength_default,), "folds": 2})
    generator = np.random.default_rng(seed)
    items = np.sort(generator.permutation(len(test[0]))[:ITEMS_MAX])
    test = test[0][items], test[1][items]
    item_count = len(items)
    fold_count, draws = (min(FOLDS, item_count), draws) if learns_from_test else (1, draws * FOLDS)
    learned_count = item_count - -(-item_count // fold_count) if fold_count else 0
    counts = curve_counts(len(control[0]) + learned_count)
    if not counts or not item_count:
        return None
    correct = np.zeros((draws, len(counts), item_count), dtype=np.bool_)
    step, steps = 0, draws * fold_count * len(counts)
    for draw in range(draws):
        folds = generator.permutation(item_count) % fold_count
        for fold in range(fold_count):
            held_out = folds == fold
            embeddings = np.concatenate([control[0], test[0][~held_out]])
            labels = np.concatenate([control[1], test[1][~held_out]])
            order = generator.permutation(len(labels))
            for place, count in enumerate(counts):
                part = order[:count]
                predicted = _predict(embeddings[part], labels[part], test[0][held_out], concepts, task, fixed, seed)
                correct[draw, place, held_out] = (predicted == test[1][held_out]).all(axis=1)
                step += 1
                measured(step, steps)
    return LearningCurve(tuple(counts), items, correct)


def _predict(
    embeddings: Array,
    labels: Labels,
    asked: Array,
    concepts: tuple[str, ...],
    task: Task,
    choices: HeadChoices,
    seed: int,
) -> Labels:
    """What a head predicts; where its labels teach nothing, the first of them."""
    # Only thresholds need held-out answers here: a temperature moves no classification.
    cross_validated = task is Task.MULTILABEL
    try:
        fitted = fit_head(embeddings, labels, concepts, task, choices, seed=seed, cross_validated=cross_validated)
    except TooFewLabelsError:
        return np.broadcast_to(labels[0], (len(asked), labels.shape[1]))
    return _decide(fitted.head, asked)


def _decide(head: Head, embeddings: Array) -> Labels:
    return head.decide(head.probabilities(embeddings))


def _estimate(mean: float, spread: float, test_count: int) -> Estimate:
    """What other labels and other test items might have shown: both errors together, 95 %."""
    measured = wilson(round(mean * test_count), test_count)
    drawn = Z_95 * spread
    low = float(np.hypot(drawn, mean - min(mean, measured.low)))
    high = float(np.hypot(drawn, max(mean, measured.high) - mean))
    return Estimate(value=mean, low=max(0.0, mean - low), high=min(1.0, mean + high))
