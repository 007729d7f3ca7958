"""How accuracy grows with labels drawn at random: what the control arm alone teaches, to tell what choosing saved."""

from collections.abc import Callable, Iterator

import numpy as np
from vesta_contracts.training.v1 import Estimate, LearningCurvePoint

from vesta_training.errors import TooFewLabelsError
from vesta_training.example import Array
from vesta_training.head import Head, Labels, fit_head
from vesta_training.intervals import Z_95, wilson
from vesta_training.progress import untold
from vesta_training.recipe import HeadChoices, Task

LABELS_FIRST = 10
GROWTH = 2


def curve_sizes(label_count: int) -> list[int]:
    """Where the curve is measured: 10, 20, 40 … and all. Empty for fewer than 10 labels."""
    if label_count < LABELS_FIRST:
        return []
    sizes = [LABELS_FIRST]
    while sizes[-1] * GROWTH < label_count:
        sizes.append(sizes[-1] * GROWTH)
    return sizes if sizes[-1] == label_count else [*sizes, label_count]


def learning_curve(
    embeddings: Array,
    labels: Labels,
    test_embeddings: Array,
    test_truth: Labels,
    concepts: tuple[str, ...],
    task: Task,
    choices: HeadChoices,
    *,
    draws: int,
    seed: int,
    measured: Callable[[int, int], None] = untold,
) -> list[LearningCurvePoint]:
    """Accuracy on the test items of heads fitted on growing parts of the control arm's items.

    Each draw is one order of the items, of which longer and longer beginnings are learned. The interval says
    what other labels of the same number, and other test items, might have shown. The last point uses all items, so that its
    draws agree; it takes the spread of the point before. Heads take the default strength: what is compared is labels, not tuning.

    Args:
        embeddings: `(N, D)` of the control arm's training items; `labels` `(N, C)`.
        test_embeddings: `(M, D)`; `test_truth` `(M, C)`.
        measured: called after each fit with its number and how many there will be.
    """
    fixed = choices.model_copy(update={"strengths": (choices.strength_default,), "folds": 2})
    # Only thresholds need held-out answers here: a temperature moves no classification.
    cross_validated = task is Task.MULTILABEL
    sizes = curve_sizes(len(labels))
    steps = max(0, len(sizes) - 1) * draws + bool(sizes)
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(labels)) for _ in range(draws)]
    step = 0

    def accuracies(size: int) -> Iterator[float]:
        nonlocal step
        for order in orders if size < len(labels) else orders[:1]:
            part = order[:size]
            try:
                head = fit_head(
                    embeddings[part],
                    labels[part],
                    concepts,
                    task,
                    fixed,
                    seed=seed,
                    cross_validated=cross_validated,
                ).head
                predicted = _decide(head, test_embeddings)
            except TooFewLabelsError:
                predicted = np.broadcast_to(labels[part[0]], test_truth.shape)
            step += 1
            measured(step, steps)
            yield float((predicted == test_truth).all(axis=1).mean())

    points = []
    variance = 0.0
    for size in sizes:
        values = np.array(list(accuracies(size)))
        if len(values) > 1 and size < len(labels):
            # Parts of one arm have much in common: labels drawn anew would differ by more (finite population correction).
            variance = float(values.var(ddof=1)) / (1 - size / len(labels))
        points.append(
            LearningCurvePoint(label_count=size, accuracy=_estimate(float(values.mean()), variance, len(test_truth)))
        )
    return points


def _estimate(mean: float, variance: float, test_count: int) -> Estimate:
    """What other labels and other test items might have shown: both errors together, 95 %."""
    measured = wilson(round(mean * test_count), test_count)
    drawn = Z_95 * variance**0.5
    low = float(np.hypot(drawn, mean - min(mean, measured.low)))
    high = float(np.hypot(drawn, max(mean, measured.high) - mean))
    return Estimate(value=mean, low=max(0.0, mean - low), high=min(1.0, mean + high))


def _decide(head: Head, embeddings: Array) -> Labels:
    return head.decide(head.probabilities(embeddings))
