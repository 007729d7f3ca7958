"""The learning curve of random labels: accuracy by number of labels. It is the baseline for active learning.

Random labels are those of the control arm and, if the test split is a random sample, those of the test split. Because they are few, heads
learn from both, and the test items are cross-fitted: each is predicted only by heads that have not learned from it. These heads are
discarded; no deployed model learns from a test item. If the test split was not sampled from the same images, it is not used for learning,
because the baseline would be too good.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from vesta_common.intervals import Z_95, wilson
from vesta_contracts.training.v1 import Estimate, LearningCurvePoint

from vesta_training.errors import TooFewLabelsError
from vesta_training.example import Array
from vesta_training.heads.linear_head import Head, Labels, fit_head
from vesta_training.progress import ignore_progress
from vesta_training.recipes.choices import HeadChoices, Task

LABELS_FIRST = 10
LABELS_MAX = 1000
"""Maximum number of labels. More labels take much time and change little."""
GROWTH = 2
FOLDS = 5
ITEMS_MAX = 5000
"""Maximum number of test items. More do not narrow the intervals, which the labels dominate."""

Correct = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The correct predictions of heads that learned from random labels.

    Attributes:
        label_counts: `(S,)`, ascending.
        items: `(M,)`, the predicted rows of the test split.
        correct: `(D, S, M)`, whether test item m is predicted correctly after learning from `label_counts[s]` labels, in draw d.
    """

    label_counts: tuple[int, ...]
    items: npt.NDArray[np.int64]
    correct: Correct

    @property
    def points(self) -> list[LearningCurvePoint]:
        """The accuracy at each count, with a 95 % interval that covers other draws of labels and of test items."""
        accuracies = self.correct.mean(axis=2)
        spreads = self.label_spreads()
        return [
            LearningCurvePoint(label_count=count, metric=_estimate(float(mean), spread, self.correct.shape[2]))
            for count, mean, spread in zip(self.label_counts, accuracies.mean(axis=0), spreads, strict=True)
        ]

    def label_spreads(self) -> Array:
        """Returns `(S,)` standard deviations of accuracy between different sets of labels of the same size.

        Draws from the same set of labels overlap, so that they vary less than independent draws. The finite population correction
        compensates for that. For the largest count, for which hardly any labels are left to draw, the previous deviation is used if
        it is larger.
        """
        if len(self.correct) < 2:
            return np.zeros(len(self.label_counts), dtype=np.float32)
        variances = self.correct.mean(axis=2).var(axis=0, ddof=1)
        undrawn_share = 1 - np.array(self.label_counts) / (self.label_counts[-1] * FOLDS / (FOLDS - 1))
        spreads = np.sqrt(variances / np.maximum(undrawn_share, 1 / FOLDS))
        spreads[-1] = max(spreads[-1], spreads[-2]) if len(spreads) > 1 else spreads[-1]
        smoothed = np.sqrt(np.convolve(np.pad(spreads**2, 1, mode="edge"), np.ones(3) / 3, mode="valid"))
        return smoothed.astype(np.float32)


def curve_counts(label_count: int) -> list[int]:
    """Returns the numbers of labels of the curve: 10, 20, 40 … and all, at most 1,000. Empty for fewer than 10 labels."""
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
    measured: Callable[[int, int], None] = ignore_progress,
) -> LearningCurve | None:
    """Fits heads on increasing numbers of random labels. They use the default strength, because labels are compared and not strengths.

    Args:
        control: `(N, D)` embeddings and `(N, C)` labels of the training items of the control arm.
        test: `(T, D)` and `(T, C)` of the test split; at most 5,000 items are predicted.
        learns_from_test: whether the test split is a random sample of the same images.
        draws: number of random folds and label orders; five times as many if there are no folds.
        measured: called after each fit with its number and the total number of fits.

    Returns:
        The curve; None if there are fewer than ten labels.
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
            for index, count in enumerate(counts):
                part = order[:count]
                predicted = _predict(embeddings[part], labels[part], test[0][held_out], concepts, task, fixed, seed)
                correct[draw, index, held_out] = (predicted == test[1][held_out]).all(axis=1)
                step += 1
                measured(step, steps)
    return LearningCurve(tuple(counts), items, correct)


def _predict(
    embeddings: Array,
    labels: Labels,
    requested: Array,
    concepts: tuple[str, ...],
    task: Task,
    choices: HeadChoices,
    seed: int,
) -> Labels:
    """Fits a head and returns its predictions. If the labels do not allow a fit, the first label is predicted for all items."""
    # Only thresholds need held-out predictions; a temperature does not change the predicted concept.
    cross_validated = task is Task.MULTILABEL
    try:
        fitted = fit_head(embeddings, labels, concepts, task, choices, seed=seed, cross_validated=cross_validated)
    except TooFewLabelsError:
        return np.broadcast_to(labels[0], (len(requested), labels.shape[1]))
    return _decide(fitted.head, requested)


def _decide(head: Head, embeddings: Array) -> Labels:
    return head.decide(head.probabilities(embeddings))


def _estimate(mean: float, spread: float, test_count: int) -> Estimate:
    """Combines the errors due to the draw of labels and the draw of test items into one 95 % interval."""
    measured = wilson(round(mean * test_count), test_count)
    drawn = Z_95 * spread
    low = float(np.hypot(drawn, mean - min(mean, measured.low)))
    high = float(np.hypot(drawn, max(mean, measured.high) - mean))
    return Estimate(value=mean, low=max(0.0, mean - low), high=min(1.0, mean + high))
