"""From the kept items to the pool that selection looks at, and from its picks to the answer. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from vesta_common.errors import FailedPrecondition
from vesta_contracts.common.v1 import Annotation, ImageLabel, ImageScores
from vesta_contracts.datasets.v1 import SelectedItem, SelectionStrategy, SelectItemsResponse

from vesta_datasets.selection import STRATEGIES, Pool, Reason, with_control_arm
from vesta_datasets.selection.pool import Floats, Mask
from vesta_datasets.store import PoolRow

LABEL_CERTAIN = 0.5


def choose(
    rows: Sequence[PoolRow],
    *,
    excluded: Collection[str],
    strategy: SelectionStrategy.ValueType,
    count: int,
    control_share: float,
    seed: int,
    multi_label: bool,
) -> SelectItemsResponse:
    """The items to label next, the most informative first.

    Args:
        excluded: items on their way already: never chosen, and what lies near them counts as covered.

    Raises:
        FailedPrecondition: EMBEDDING_MISSING, the strategy needs embeddings and there are none.
    """
    name = strategy_name(strategy)
    held = set(excluded)
    free = np.array([not row.labelled and row.name not in held for row in rows], np.bool_)
    usable = np.array([name == "random" or row.embedding is not None for row in rows], np.bool_)
    if free.any() and not usable.any():
        raise FailedPrecondition(
            f"the strategy {name} needs embeddings, and no model has embedded the items yet; deploy one that looks after "
            "the dataset, or choose at random",
            reason="EMBEDDING_MISSING",
        )
    looked_at = [int(index) for index in np.flatnonzero(usable)]
    pool = _pool([rows[index] for index in looked_at], ~free[looked_at], count, seed, multi_label=multi_label)
    picks = [replace(pick, index=looked_at[pick.index]) for pick in STRATEGIES[name](pool)] if looked_at else []
    if control_share > 0:
        picks = with_control_arm(picks, np.flatnonzero(free), count, control_share, pool.seed)
    items = [_selected(rows[pick.index], pick.score, pick.reason, multi_label=multi_label) for pick in picks]
    kind = SelectionStrategy.Value(f"SELECTION_STRATEGY_{name.upper()}")
    return SelectItemsResponse(items=items, strategy=kind, pool_count=int(free.sum()))


def strategy_name(strategy: SelectionStrategy.ValueType) -> str:
    """The strategy's name among `STRATEGIES`; the default is `adaptive`."""
    if strategy == SelectionStrategy.SELECTION_STRATEGY_UNSPECIFIED:
        return "adaptive"
    return SelectionStrategy.Name(strategy).removeprefix("SELECTION_STRATEGY_").lower()


def _pool(rows: Sequence[PoolRow], held: Mask, count: int, seed: int, *, multi_label: bool) -> Pool:
    """What a strategy looks at; a strategy that draws at random may look at items without an embedding."""
    embedded = all(row.embedding is not None for row in rows)
    embeddings = np.stack([row.embedding for row in rows if row.embedding is not None]) if embedded and rows else None
    return Pool(
        embeddings=np.ones((len(rows), 1), np.float32) if embeddings is None else embeddings,
        probabilities=_probabilities(rows),
        labelled=held,
        batch_size=count,
        seed=abs(seed),
        multi_label=multi_label,
    )


def _probabilities(rows: Sequence[PoolRow]) -> Floats | None:
    """`(N, C)` of the newest model that classifies; rows it has not scored count as unknown. None where there is no such model."""
    versions: dict[str, int] = {}
    for row in rows:
        if row.scores is not None and row.scores.scores:
            versions[row.scores.model_version] = versions.get(row.scores.model_version, 0) + 1
    if not versions:
        return None
    version = max(versions, key=lambda key: versions[key])
    concepts = sorted(
        {
            found.concept
            for row in rows
            if row.scores is not None and row.scores.model_version == version
            for found in row.scores.scores
        }
    )
    column = {concept: index for index, concept in enumerate(concepts)}
    matrix = np.full((len(rows), len(concepts)), 1.0 / len(concepts), np.float32)
    for index, row in enumerate(rows):
        if row.scores is not None and row.scores.model_version == version:
            for found in row.scores.scores:
                matrix[index, column[found.concept]] = found.score
    return matrix


def _selected(row: PoolRow, score: float, reason: Reason, *, multi_label: bool) -> SelectedItem:
    return SelectedItem(
        item=row.name,
        control=reason is Reason.CONTROL,
        score=score,
        reason=str(reason),
        pre_annotations=_pre_annotations(row.scores, multi_label=multi_label) if row.scores else (),
        model_version=row.scores.model_version if row.scores and row.scores.scores else "",
    )


def _pre_annotations(scores: ImageScores, *, multi_label: bool) -> list[Annotation]:
    """What the model would answer: its best concept, or all that it holds true."""
    told = (
        [found for found in scores.scores if found.score >= LABEL_CERTAIN] if multi_label else list(scores.scores[:1])
    )
    return [Annotation(concept=found.concept, image_label=ImageLabel(), score=min(1.0, found.score)) for found in told]
