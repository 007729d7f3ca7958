"""The linear head on frozen features: fitting, selection of the regularisation strength, and calibration.

Ten labels are enough. A concept with one example can be predicted; a concept without examples is never predicted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from vesta_common.intervals import wilson
from vesta_contracts.training.v1 import Estimate

from vesta_training.errors import TooFewLabelsError
from vesta_training.example import Array
from vesta_training.heads.calibration import fit_temperature, fit_thresholds, log_loss
from vesta_training.heads.folds import deal_folds
from vesta_training.heads.logistic_regression import LinearMap, Link, fit_linear, sigmoid, softmax
from vesta_training.progress import ignore_progress
from vesta_training.recipes.choices import HeadChoices, Task

Labels = npt.NDArray[np.bool_]

# The logit of a concept without examples. Its probability is 0 in float32, and the value fits into half precision.
LOGIT_UNSEEN = -10_000.0


@dataclass(frozen=True, slots=True)
class Head:
    """A linear map from embeddings of unit length to calibrated probabilities. Temperature and centring are included.

    Attributes:
        weights: `(D, C)`, in the order of `concepts`.
        bias: `(C,)`.
        thresholds: one per concept; empty for classification.
    """

    task: Task
    concepts: tuple[str, ...]
    weights: Array
    bias: Array
    thresholds: tuple[float, ...] = ()

    def probabilities(self, embeddings: Array) -> Array:
        """`(N, D)` → `(N, C)`."""
        logits: Array = embeddings @ self.weights + self.bias
        return softmax(logits) if self.task is Task.CLASSIFICATION else sigmoid(logits)

    def decide(self, probabilities: Array) -> Labels:
        """Returns `(N, C)`, true for each predicted concept: the most probable one, or all that reach their thresholds."""
        return decide(self.task, probabilities, self.thresholds)


def decide(task: Task, probabilities: Array, thresholds: Sequence[float]) -> Labels:
    """Returns the predicted concepts; see `Head.decide`."""
    if task is Task.MULTILABEL:
        reached: Labels = probabilities >= np.array(thresholds, dtype=np.float32)
        return reached
    decided = np.zeros(probabilities.shape, dtype=np.bool_)
    decided[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = True
    return decided


def exact_match_share(answered: Labels, truth: Labels) -> Estimate:
    """Returns the share of items whose predicted concepts are exactly the true ones. Both arguments are `(N, C)`."""
    return wilson(int((answered == truth).all(axis=1).sum()), len(truth))


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head and the results of its fit.

    Attributes:
        strength: the selected regularisation strength.
        loss: mean per training item.
        held_out_loss: from cross-validation.
        held_out_accuracy: from cross-validation.
        unseen_concepts: concepts without examples.
    """

    head: Head
    strength: float
    temperature: float
    loss: float
    held_out_loss: float | None
    held_out_accuracy: Estimate | None
    unseen_concepts: tuple[str, ...]


def fit_head(
    embeddings: Array,
    labels: Labels,
    concepts: tuple[str, ...],
    task: Task,
    choices: HeadChoices,
    *,
    seed: int,
    cross_validated: bool = True,
    fitted: Callable[[int, int, float], None] = ignore_progress,
) -> FittedHead:
    """Fits a head, selects its strength by cross-validation, and calibrates it. Deterministic.

    Args:
        embeddings: `(N, D)` of unit length.
        labels: `(N, C)`; for classification exactly one true per row.
        cross_validated: False uses the default strength, temperature and thresholds, which is much faster.
        fitted: called after each fit with its number, the total number of fits, and its loss.

    Raises:
        TooFewLabelsError: the labels do not distinguish any concepts.
    """
    seen: Labels = np.asarray(labels.any(axis=0))
    _check_learnable(labels, concepts, task)
    problem = _Problem.of(embeddings, labels[:, seen], task, choices)
    folds = deal_folds(problem.labels, choices.folds, seed) if cross_validated else np.full(len(labels), -1)
    held_out: Labels = folds >= 0
    choosing = held_out.any() and len(labels) >= choices.labels_for_choosing_min
    strengths = sorted(choices.strengths, reverse=True) if choosing else [choices.strength_default]
    fold_count = int(folds.max()) + 1
    steps = fold_count * len(strengths) + 1
    trials: list[_Trial] = []
    for strength in strengths:
        starts = trials[-1].maps if trials else (None,) * fold_count
        maps = []
        for fold, start in enumerate(starts):
            maps.append(problem.without(folds == fold).fit(strength, start))
            fitted(len(trials) * fold_count + fold + 1, steps, maps[-1].loss)
        trials.append(problem.trial(strength, tuple(maps), folds))
        if len(trials) > 2 and trials[-1].loss > trials[-2].loss > trials[-3].loss:
            # The optimum is passed. Weaker strengths take longest and would be worse.
            break
    best = min(trials, key=lambda trial: trial.loss)
    # The map of a fold is a good start for the fit on all items.
    linear_map = problem.fit(best.strength, best.maps[0] if best.maps else None)
    fitted(steps, steps, linear_map.loss)
    weights, bias = problem.unrotated(linear_map)
    head = Head(
        task=task,
        concepts=concepts,
        weights=_spread(weights / np.float32(best.temperature), seen, 0.0),
        bias=_spread(bias / np.float32(best.temperature), seen, LOGIT_UNSEEN),
        thresholds=_thresholds(task, problem, best.logits / np.float32(best.temperature), held_out, seen),
    )
    cooled = best.logits[held_out] / np.float32(best.temperature)
    probabilities = softmax(cooled) if task is Task.CLASSIFICATION else sigmoid(cooled)
    answered = head.decide(_spread(probabilities, seen, 0.0))
    return FittedHead(
        head=head,
        strength=best.strength,
        temperature=best.temperature,
        loss=linear_map.loss,
        held_out_loss=best.loss if held_out.any() else None,
        held_out_accuracy=exact_match_share(answered, labels[held_out]) if held_out.any() else None,
        unseen_concepts=tuple(concept for concept, known in zip(concepts, seen, strict=True) if not known),
    )


@dataclass(frozen=True, slots=True)
class _Trial:
    """The cross-validation of one strength: a map per fold, the logits `(N, C)` of held-out items, their temperature and loss."""

    strength: float
    maps: tuple[LinearMap, ...]
    logits: Array
    temperature: float
    loss: float


@dataclass(frozen=True, slots=True)
class _Problem:
    """The problem to fit: centred features with a unit mean square, rotated into the smallest sufficient number of dimensions."""

    features: Array
    labels: Labels
    link: Link
    choices: HeadChoices
    centre: Array
    scale: float
    rotation: Array | None

    @classmethod
    def of(cls, embeddings: Array, labels: Labels, task: Task, choices: HeadChoices) -> "_Problem":
        centre = embeddings.mean(axis=0)
        features = embeddings - centre
        scale = float(np.sqrt((features**2).sum(axis=1).mean())) or 1.0
        features = features / np.float32(scale)
        rotation = None
        count, dimension = features.shape
        if 2 * count < dimension:
            # The optimal weights lie in the span of the features, and a rotation keeps lengths: the smaller fit is equivalent.
            rotation = np.linalg.qr(features.T)[0].astype(np.float32)
            features = features @ rotation
        return cls(
            features=features,
            labels=labels,
            link="softmax" if task is Task.CLASSIFICATION else "sigmoid",
            choices=choices,
            centre=centre,
            scale=scale,
            rotation=rotation,
        )

    def without(self, held_out: Labels) -> "_Problem":
        """Returns the problem without the held-out items."""
        return _Problem(
            features=self.features[~held_out],
            labels=self.labels[~held_out],
            link=self.link,
            choices=self.choices,
            centre=self.centre,
            scale=self.scale,
            rotation=self.rotation,
        )

    def fit(self, strength: float, start: LinearMap | None) -> LinearMap:
        weights, offset = imbalance_terms(self.labels, self.link, self.choices)
        return fit_linear(
            self.features,
            self.labels,
            self.link,
            strength=strength,
            weights=weights,
            offset=offset,
            start=start,
        )

    def trial(self, strength: float, maps: tuple[LinearMap, ...], folds: npt.NDArray[np.int64]) -> _Trial:
        """Evaluates the map of each fold on the held-out items of the fold."""
        logits = np.zeros(self.labels.shape, dtype=np.float32)
        for fold, fold_map in enumerate(maps):
            logits[folds == fold] = fold_map.logits(self.features[folds == fold])
        held_out = folds >= 0
        temperature = fit_temperature(logits[held_out], self.labels[held_out], self.link)
        scaled = logits[held_out] / np.float32(temperature)
        answers = softmax(scaled) if self.link == "softmax" else sigmoid(scaled)
        return _Trial(strength, maps, logits, temperature, log_loss(answers, self.labels[held_out], self.link))

    def unrotated(self, linear_map: LinearMap) -> tuple[Array, Array]:
        """Returns weights `(D, C)` and bias `(C,)` for untransformed embeddings."""
        weights: Array = linear_map.weights if self.rotation is None else self.rotation @ linear_map.weights
        weights = weights / np.float32(self.scale)
        bias: Array = linear_map.bias - self.centre @ weights
        return weights, bias


def imbalance_terms(labels: Labels, link: Link, choices: HeadChoices) -> tuple[Array, Array]:
    """Returns the weights of the losses, `(N, 1)` or `(N, C)`, and the offset of the logits during the fit, `(C,)`."""
    count, concept_count = labels.shape
    offset = np.zeros(concept_count, dtype=np.float32)
    weights = np.ones((count, 1), dtype=np.float32)
    # Half an item is added to both counts, so that values are finite for concepts of no item or of every item.
    shares = (labels.sum(axis=0) + 0.5) / (count + 1)
    if choices.imbalance == "logit_adjustment":
        odds = shares if link == "softmax" else shares / (1 - shares)
        offset = (choices.imbalance_share * np.log(odds)).astype(np.float32)
    elif choices.imbalance == "balanced":
        if link == "softmax":
            weights = (labels @ (concept_count * shares) ** -choices.imbalance_share)[:, None]
        else:
            weights = np.where(labels, 2 * shares, 2 * (1 - shares)) ** -choices.imbalance_share
        weights = (weights / weights.mean()).astype(np.float32)
    return weights, offset


def _check_learnable(labels: Labels, concepts: Sequence[str], task: Task) -> None:
    if len(labels) == 0:
        raise TooFewLabelsError("no item of the train split is labelled; label items and create a new snapshot")
    if task is Task.CLASSIFICATION and labels.any(axis=0).sum() < 2:
        only = concepts[int(labels.any(axis=0).argmax())]
        raise TooFewLabelsError(
            f"all {len(labels)} labelled items of the train split have the label {only!r}; label "
            "at least one item with another concept"
        )
    if task is Task.MULTILABEL and not (labels.any(axis=0) & ~labels.all(axis=0)).any():
        raise TooFewLabelsError("each concept applies to all or none of the labelled items; label items that differ")


def _spread(values: Array, seen: Labels, filler: float) -> Array:
    """Expands columns of seen concepts to the columns of all concepts."""
    spread = np.full((*values.shape[:-1], len(seen)), filler, dtype=np.float32)
    spread[..., seen] = values
    return spread


def _thresholds(task: Task, problem: _Problem, logits: Array, held_out: Labels, seen: Labels) -> tuple[float, ...]:
    if task is not Task.MULTILABEL:
        return ()
    thresholds = fit_thresholds(sigmoid(logits[held_out]), problem.labels[held_out])
    return tuple(float(value) for value in _spread(np.array(thresholds, dtype=np.float32), seen, 0.5))
