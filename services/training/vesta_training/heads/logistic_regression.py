"""Logistic regression: L2-penalised logistic loss, minimised by L-BFGS from a given start.

The link is a softmax over the concepts (classification) or a sigmoid per concept (multi-label).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.optimize import minimize

from vesta_training.example import Array

ITERATIONS_MAX = 300
# Relative decrease of the loss at which the iteration stops. On photographs, 1e-7 took twice as long and changed neither the
# accuracy nor the log loss of the test split; 1e-4 changed both.
LOSS_CHANGE_MIN = 1e-5
# Penalty of the bias as a share of the strength. A small penalty makes the optimal bias unique for separable concepts.
BIAS_PENALTY_SHARE = 1e-3

Link = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True)
class LinearMap:
    """`logits = features @ weights + bias`, with weights `(D, C)` and bias `(C,)`. `loss` is the mean per item without penalty."""

    weights: Array
    bias: Array
    loss: float

    def logits(self, features: Array) -> Array:
        """`(N, D)` → `(N, C)`."""
        answer: Array = features @ self.weights + self.bias
        return answer


def fit_linear(
    features: Array,
    labels: npt.NDArray[np.bool_],
    link: Link,
    *,
    strength: float,
    weights: Array,
    offset: Array,
    start: LinearMap | None,
) -> LinearMap:
    """Returns the map that minimises Σ weights · loss(features·W + b + offset, labels) + strength/2 · |W|².

    Args:
        features: `(N, D)`.
        labels: `(N, C)`; with softmax exactly one true per row.
        weights: `(N, 1)` or `(N, C)`, the weights of the losses, with a mean of about 1.
        offset: `(C,)`, added to the logits during the fit only.
        start: initial values; None for zero.
    """
    count, dimension = features.shape
    concept_count = labels.shape[1]
    targets = labels.astype(np.float32)
    penalty = np.full((dimension + 1, 1), strength, dtype=np.float32)
    penalty[dimension] *= BIAS_PENALTY_SHARE
    unpenalised = 0.0

    def objective(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        nonlocal unpenalised
        parameters = flat.astype(np.float32).reshape(dimension + 1, concept_count)
        logits = features @ parameters[:dimension] + (parameters[dimension] + offset)
        losses, errors = _softmax(logits, targets) if link == "softmax" else _sigmoid(logits, targets)
        errors *= weights
        unpenalised = float((losses * weights).sum(dtype=np.float64))
        gradient = penalty * parameters
        gradient[:dimension] += features.T @ errors
        gradient[dimension] += errors.sum(axis=0)
        loss = unpenalised + 0.5 * float((penalty * parameters**2).sum(dtype=np.float64))
        return loss, gradient.astype(np.float64).ravel()

    begin = np.zeros((dimension + 1, concept_count)) if start is None else np.vstack([start.weights, start.bias])
    solution = minimize(
        objective,
        begin.astype(np.float64).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": ITERATIONS_MAX, "ftol": LOSS_CHANGE_MIN, "gtol": 1e-4 * count**0.5},
    )
    parameters = solution.x.astype(np.float32).reshape(dimension + 1, concept_count)
    objective(solution.x)
    return LinearMap(weights=parameters[:dimension], bias=parameters[dimension], loss=unpenalised / count)


def softmax(logits: Array) -> Array:
    """`(N, C)` logits → `(N, C)` probabilities, with rows that sum to 1."""
    shares: Array = special.softmax(logits, axis=1)
    return shares


def sigmoid(logits: Array) -> Array:
    """Logits → independent probabilities of the same shape."""
    shares: Array = special.expit(logits)
    return shares


def _softmax(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Returns losses `(N, 1)` and their gradients with respect to the logits `(N, C)`."""
    logits = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(logits)
    sums = powers.sum(axis=1, keepdims=True)
    losses = np.log(sums) - (logits * targets).sum(axis=1, keepdims=True)
    return losses, powers / sums - targets


def _sigmoid(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Returns losses and their gradients with respect to the logits, both `(N, C)`."""
    return np.logaddexp(np.float32(0), logits) - logits * targets, sigmoid(logits) - targets
