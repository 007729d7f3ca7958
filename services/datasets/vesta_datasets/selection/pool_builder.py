"""Builds the pool of a selection from stored items, and the response from its picks. Pure functions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from vesta_common.errors import FailedPrecondition
from vesta_contracts.datasets.v1 import SelectedItem, SelectionStrategy, SelectItemsResponse

from vesta_datasets.selection import STRATEGIES, Pool, Reason, with_control_arm
from vesta_datasets.selection.candidates import Candidates, PoolRow
from vesta_datasets.selection.pool import Floats, Mask
from vesta_datasets.task_types import DatasetTask


def choose(
    candidates: Candidates,
    *,
    strategy: SelectionStrategy.ValueType,
    count: int,
    control_share: float,
    seed: int,
    scored_by: str,
    task: DatasetTask,
) -> SelectItemsResponse:
    """Selects the items to label next, the most informative first.

    Args:
        scored_by: the newest model version; empty before the first.

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
        probabilities=probabilities(rows, scored_by, task),
        labelled=~free[indices],
        batch_size=count,
        seed=abs(seed),
        task=task,
    )
    picks = [replace(pick, index=indices[pick.index]) for pick in STRATEGIES[name](pool)] if rows else []
    if control_share > 0:
        picks = with_control_arm(picks, np.flatnonzero(free), count, control_share, pool.seed)
    items = [_selected(candidates.rows[pick.index], pick.score, pick.reason, task) for pick in picks]
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


def probabilities(rows: Sequence[PoolRow], scored_by: str, task: DatasetTask) -> Floats | None:
    """Returns `(N, C)` probabilities of the concepts of the newest model. None if no item has scores.

    Each row uses its own scores, whichever model version they are from, because items are scored one by one after a deployment.

    Args:
        scored_by: the newest model version.
    """
    scored = [row for row in rows if row.prediction is not None and row.prediction.scores]
    if not scored:
        return None
    newest = [row for row in scored if row.prediction is not None and row.prediction.model_version == scored_by]
    concepts = sorted({score.concept for row in newest or scored if row.prediction for score in row.prediction.scores})
    return task.probabilities([row.prediction.scores if row.prediction is not None else () for row in rows], concepts)


def _selected(row: PoolRow, score: float, reason: Reason, task: DatasetTask) -> SelectedItem:
    return SelectedItem(
        item=row.name,
        control=reason is Reason.CONTROL,
        score=score,
        reason=str(reason),
        pre_annotations=task.pre_annotations(row.prediction) if row.prediction else (),
        model_version=row.prediction.model_version if row.prediction and row.prediction.scores else "",
        prediction_certain=bool(row.prediction and row.prediction.scores and not row.prediction.uncertain),
    )
