"""The error rate of predictions that are accepted without a human, at a limit of 2 %: in how many of 20 seeds it is kept.

Each seed trains the head of a built-in recipe on labels that the default selection chooses, chooses the smallest
accepted margin on held-out labels as serving does, and measures the errors on items that nothing else uses. Some items
have none of the concepts: a model for one label is always wrong about them. Run as a program, it prints the seeds:

    python benchmarks/risk.py
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from figures import Figure
from label_saving import Floats, Labels
from vesta_common.risk_control import HeldOut, Limits, accept
from vesta_datasets.selection import STRATEGIES, Pool
from vesta_datasets.task_types.classification import distribution_uncertainty
from vesta_datasets.task_types.multi_label import centred_uncertainty
from vesta_datasets.task_types.uncertainty import Uncertainty
from vesta_training.heads.linear_head import Head, fit_head
from vesta_training.recipes.choices import HeadChoices, Task
from vesta_training.recipes.recipe import builtin_recipe
from vesta_training.tasks.classification.held_out import held_out

SEEDS: Final = 20
LIMIT: Final = 0.02
GOAL: Final = 0.95
BATCH_SIZE: Final = 50
BATCHES: Final = 4
POOL_ITEMS: Final = 600
HELD_OUT_ITEMS: Final = 500
# Drawn from distributions, so that there are enough unseen items to measure an error rate near the limit: the concepts, the share of
# items without one, and the distances in standard deviations.
CONCEPTS: Final = 8
DIMENSIONS: Final = 32
ITEMS: Final = 20_000
NONE_SHARE: Final = 0.02
DISTANCE: Final = 4.5
LABELS: Final = 4
LABEL_SHARE: Final = 0.3
LABEL_DISTANCE: Final = 4.5
SCORE_FIXED, MARGIN_FIXED = 0.8, 0.2


@dataclass(frozen=True)
class Items:
    """N items of one seed: embeddings of unit length `(N, D)`, and the labels of each."""

    embeddings: Floats
    labels: tuple[tuple[str, ...], ...]

    def part(self, start: int, end: int | None) -> "Items":
        return Items(self.embeddings[start:end], self.labels[start:end])


@dataclass(frozen=True)
class Outcome:
    """The result of one seed: which share of the unseen items is accepted, and the share of errors among them."""

    share: float
    error_rate: float

    @property
    def is_kept(self) -> bool:
        return self.error_rate <= LIMIT


def outcome(items: Items, task: Task, seed: int) -> Outcome:
    """Trains, chooses the margin and measures."""
    pool, rest = items.part(0, POOL_ITEMS), items.part(POOL_ITEMS, None)
    head = _head(pool, task, seed)
    evidence = rest.part(0, HELD_OUT_ITEMS)
    chosen = accept(held_out(head, evidence.embeddings, evidence.labels), Limits(LIMIT))
    unseen = rest.part(HELD_OUT_ITEMS, None)
    predictions = held_out(head, unseen.embeddings, unseen.labels)
    accepted = [one for one in predictions if not chosen.why_not(one.margin, one.concepts)]
    return Outcome(len(accepted) / len(predictions), _error_rate(accepted))


def fixed_error_rate(items: Items, seed: int) -> float:
    """The error rate with fixed bounds of score and margin in place of a limit, for one label per item."""
    head = _head(items.part(0, POOL_ITEMS), Task.CLASSIFICATION, seed)
    unseen = items.part(POOL_ITEMS + HELD_OUT_ITEMS, None)
    best = head.probabilities(unseen.embeddings).max(axis=1)
    predictions = held_out(head, unseen.embeddings, unseen.labels)
    return _error_rate(
        [
            one
            for one, score in zip(predictions, best, strict=True)
            if score >= SCORE_FIXED and one.margin >= MARGIN_FIXED
        ]
    )


def _error_rate(predictions: Sequence[HeldOut]) -> float:
    return sum(not one.is_correct for one in predictions) / max(1, len(predictions))


def _head(pool: Items, task: Task, seed: int) -> Head:
    """Trains on the labels that the default selection chooses, as a Loop does."""
    concepts = tuple(sorted({concept for labels in pool.labels for concept in labels}))
    truth = np.array([[concept in labels for concept in concepts] for labels in pool.labels])
    learnable = truth.any(axis=1) if task is Task.CLASSIFICATION else np.ones(len(truth), np.bool_)
    choices = builtin_recipe(str(task)).head or HeadChoices()
    labelled = np.zeros(len(truth), dtype=np.bool_)
    uncertainty: Uncertainty | None = None
    uncertainty_of = centred_uncertainty if task is Task.MULTILABEL else distribution_uncertainty
    for batch in range(BATCHES):
        drawn = Pool(pool.embeddings, uncertainty, labelled.copy(), BATCH_SIZE, seed * BATCHES + batch)
        labelled[[pick.index for pick in STRATEGIES["adaptive"](drawn)]] = True
        known = labelled & learnable
        fitted = fit_head(
            pool.embeddings[known],
            truth[known],
            concepts,
            task,
            choices,
            seed=seed,
            cross_validated=batch == BATCHES - 1,  # the others only select
        )
        uncertainty = uncertainty_of(fitted.head.probabilities(pool.embeddings))
    return fitted.head


def clusters(seed: int) -> Items:
    """Gaussian clusters, one per concept; `NONE_SHARE` of the items are from a cluster without a concept."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((CONCEPTS + 1, DIMENSIONS))
    centres *= DISTANCE / np.linalg.norm(centres, axis=1, keepdims=True)
    shares = np.array([*[(1 - NONE_SHARE) / CONCEPTS] * CONCEPTS, NONE_SHARE])
    number: Labels = generator.choice(CONCEPTS + 1, ITEMS, p=shares)
    points = centres[number] + generator.standard_normal((ITEMS, DIMENSIONS))
    embeddings = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return Items(embeddings, tuple((f"c{one}",) if one < CONCEPTS else () for one in number))


def several_labels(seed: int) -> Items:
    """Items with each concept or without, independently: the sum of the directions of their concepts, with Gaussian noise."""
    generator = np.random.default_rng(seed)
    directions = np.linalg.qr(generator.standard_normal((DIMENSIONS, LABELS)))[0].T
    has = generator.random((ITEMS, LABELS)) < LABEL_SHARE
    points = LABEL_DISTANCE * (has - LABEL_SHARE) @ directions + generator.standard_normal((ITEMS, DIMENSIONS))
    embeddings = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return Items(embeddings, tuple(tuple(f"c{one}" for one in np.flatnonzero(row)) for row in has))


DATA: Final = {
    "one label": (clusters, Task.CLASSIFICATION),
    "several labels": (several_labels, Task.MULTILABEL),
}


def measure() -> list[Figure]:
    """`risk_kept`: the share of seeds in which the limit is kept, for one label or several, whichever is lower."""
    details: dict[str, float] = {}
    for name, (items_of, task) in DATA.items():
        outcomes = [outcome(items_of(seed), task, seed) for seed in range(SEEDS)]
        key = name.replace(" ", "_")
        details[f"{key}_kept"] = float(np.mean([one.is_kept for one in outcomes]))
        details[f"{key}_accepted_share"] = float(np.mean([one.share for one in outcomes]))
        details[f"{key}_error_rate"] = float(np.mean([one.error_rate for one in outcomes]))
    fixed = [fixed_error_rate(clusters(seed), seed) for seed in range(SEEDS)]
    details["one_label_error_rate_of_fixed_bounds"] = float(np.mean(fixed))
    value = min(details[name] for name in details if name.endswith("_kept"))
    baseline = f"limit {LIMIT:.0%}, {HELD_OUT_ITEMS} held-out labels, {SEEDS} seeds each"
    return [Figure("risk_kept", value, GOAL, lower=False, baseline=baseline, details=details)]


def main() -> None:
    """Prints each seed."""
    for name, (items_of, task) in DATA.items():
        for seed in range(SEEDS):
            found = outcome(items_of(seed), task, seed)
            print(f"{name:15} seed {seed:2}: {found.share:6.1%} accepted, {found.error_rate:6.2%} wrong", flush=True)


if __name__ == "__main__":
    main()
