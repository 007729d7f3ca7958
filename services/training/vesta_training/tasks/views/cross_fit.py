"""Cross-fitting: every example is predicted by a head that has not learned from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from vesta_training.recipes.choices import MapHeadChoices
from vesta_training.tasks.views.fit import step_count

Learned = TypeVar("Learned")


@dataclass(frozen=True, slots=True)
class Fold(Generic[Learned]):
    """A fold: the examples to learn from, and those that are held out, with their positions among all examples."""

    number: int
    known: tuple[Learned, ...]
    held_out: tuple[Learned, ...]
    positions: tuple[int, ...]


def folds_of(examples: Sequence[Learned], choices: MapHeadChoices, seed: int) -> Iterator[Fold[Learned]]:
    """Yields the folds, drawn at random; none if there are fewer than two examples for each."""
    count = choices.calibration_folds
    if len(examples) < 2 * count:
        return
    fold_of = np.random.default_rng(seed).permutation(len(examples)) % count
    for number in range(count):
        positions = tuple(int(position) for position in np.flatnonzero(fold_of == number))
        known = tuple(example for example, own in zip(examples, fold_of, strict=True) if own != number)
        yield Fold(number, known, tuple(examples[position] for position in positions), positions)


def fold_step_count(image_count: int, choices: MapHeadChoices) -> int:
    """Returns the number of steps of each fold, if the model learns from so many images."""
    return max(round(step_count(image_count, choices) * choices.calibration_steps_share), choices.steps_min)
