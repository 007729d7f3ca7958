"""Builds the pool of a selection from stored items, and the response from its picks. Pure functions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from vesta_common.errors import FailedPrecondition
from vesta_contracts.common.v1 import Prediction
from vesta_contracts.datasets.v1 import SelectedItem, SelectionStrategy, SelectItemsResponse

from vesta_datasets.selection import STRATEGIES, Pool, Reason, with_control_arm
from vesta_datasets.selection.candidates import Candidates, PoolRow
from vesta_datasets.selection.pool import Floats
from vesta_datasets.task_types import DatasetTask
from vesta_datasets.task_types.uncertainty import Mask, Uncertainty

SUGGESTIONS_BYTES_MAX = 32 * 1024 * 1024
"""Size limit of the pre-annotations of a response; the last ones may exceed it. A gRPC message has at most twice as many bytes."""


def choose(
    candidates: Candidates,
    *,
    strategy: SelectionStrategy.ValueType,
    count: int,
    control_share: float,
    seed: int,
    scored_by: str,
    task: DatasetTask,
    whole: Callable[[Prediction], Prediction],
) -> SelectItemsResponse:
    """Selects the items to label next, the most informative first.

    Args:
        scored_by: the newest model version; empty before the first.
        whole: returns a prediction with its annotations instead of a reference to them.

    Raises:
        FailedPrecondition: EMBEDDING_MISSING, the strategy needs embeddings and no item has one.
    """
    name = strategy_name(strategy)
    free = np.array([not row.held for row in candidates.rows], np.bool_)
    usable = np.ones_like(candidates.embedded) if name == "random" else candidates.embedded
    if free.any() and not usable.any():
        raise FailedPrecondition(
            f"the strategy {name} requires embeddings, and the items have none yet; deploy a "
            "model with this dataset in its `datasets`, or use the strategy RANDOM",
            reason="EMBEDDING_MISSING",
        )
    indices = np.flatnonzero(usable).tolist()
    rows = [candidates.rows[index] for index in indices]
    pool = Pool(
        embeddings=_embeddings(candidates, usable, name),
        uncertainty=uncertainty(rows, scored_by, task),
        labelled=~free[indices],
        batch_size=count,
        seed=abs(seed),
        typical_start=task.typical_start,
    )
    picks = [replace(pick, index=indices[pick.index]) for pick in STRATEGIES[name](pool)] if rows else []
    if control_share > 0:
        picks = with_control_arm(picks, np.flatnonzero(free), count, control_share, pool.seed)
    items = [_selected(candidates.rows[pick.index], pick.score, pick.reason) for pick in picks]
    _suggest(items, [candidates.rows[pick.index].prediction for pick in picks], task, whole)
    kind = SelectionStrategy.Value(f"SELECTION_STRATEGY_{name.upper()}")
    return SelectItemsResponse(items=items, strategy=kind, pool_count=candidates.free_count)


def drawn_at_random(names: Sequence[str], pool_count: int) -> SelectItemsResponse:
    """Returns the response of a draw of items whose labels measure models: without pre-annotations."""
    items = [SelectedItem(item=name, reason=str(Reason.RANDOM)) for name in names]
    return SelectItemsResponse(items=items, strategy=SelectionStrategy.SELECTION_STRATEGY_RANDOM, pool_count=pool_count)


def strategy_name(strategy: SelectionStrategy.ValueType) -> str:
    """Returns the key of the strategy in `STRATEGIES`; the default is `adaptive`."""
    if strategy == SelectionStrategy.SELECTION_STRATEGY_UNSPECIFIED:
        return "adaptive"
    return SelectionStrategy.Name(strategy).removeprefix("SELECTION_STRATEGY_").lower()


def _embeddings(candidates: Candidates, usable: Mask, strategy: str) -> Floats:
    """Returns `(N, D)` embeddings of the usable rows, without a copy if all are usable. The `random` strategy uses none."""
    if strategy == "random":
        return np.ones((len(candidates.rows), 1), np.float32)
    return candidates.embeddings if usable.all() else candidates.embeddings[usable]


def uncertainty(rows: Sequence[PoolRow], scored_by: str, task: DatasetTask) -> Uncertainty | None:
    """Returns the uncertainty of the items about the concepts of the newest model. None if no item has scores.

    Each row uses its own prediction, whichever model version they are from, because items are scored one by one after a deployment.

    Args:
        scored_by: the newest model version.
    """
    scored = [row for row in rows if row.prediction is not None and row.prediction.scores]
    if not scored:
        return None
    newest = [row for row in scored if row.prediction is not None and row.prediction.model_version == scored_by]
    concepts = sorted({score.concept for row in newest or scored if row.prediction for score in row.prediction.scores})
    held = np.array([row.held for row in rows], np.bool_)
    return task.uncertainty([row.prediction for row in rows], concepts, held, [row.answer for row in rows])


def _selected(row: PoolRow, score: float, reason: Reason) -> SelectedItem:
    return SelectedItem(item=row.name, control=reason is Reason.CONTROL, score=score, reason=str(reason))


def _suggest(
    items: Iterable[SelectedItem],
    predictions: Iterable[Prediction | None],
    task: DatasetTask,
    whole: Callable[[Prediction], Prediction],
) -> None:
    """Adds the predictions to the selected items as pre-annotations, as long as the response is small enough for one message."""
    size_bytes = 0
    for item, reduced in zip(items, predictions, strict=True):
        if reduced is None or not reduced.scores:
            continue
        prediction = whole(reduced) if size_bytes < SUGGESTIONS_BYTES_MAX else reduced
        item.model_version = prediction.model_version
        item.prediction_certain = not prediction.uncertain
        item.annotation_seconds = task.annotation_seconds(prediction)
        if size_bytes < SUGGESTIONS_BYTES_MAX:
            item.pre_annotations.extend(task.pre_annotations(prediction))
            size_bytes += item.ByteSize()
