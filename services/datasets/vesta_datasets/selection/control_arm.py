"""The random control arm: a share of every batch is drawn uniformly, as an unbiased sample of the unlabelled items."""

from collections.abc import Sequence

import numpy as np

from vesta_datasets.selection.pool import Indices, Pick, Reason


def with_control_arm(picks: Sequence[Pick], free: Indices, count: int, share: float, seed: int) -> list[Pick]:
    """Replaces a share of a batch by a uniform draw from the whole unlabelled pool.

    The draw is independent of the picks of the strategy. An item that both choose counts as control, and the last picks of
    the strategy are dropped. Every unlabelled item is therefore drawn with the same probability, and the control items are an
    unbiased sample of the current unlabelled pool. They are spread evenly over the batch, so that a batch that is used only
    in part has the same share.

    Args:
        picks: the picks of a strategy, at most `count`, in order of priority.
        free: `(F,)` distinct rows of the *whole* unlabelled pool, including rows that the strategy did not see because they
            have no embedding yet.
        count: size of the batch.
        share: in `[0, 1]`. If `share` times the batch size is not a whole number, it is rounded up or down at random, so that
            the mean over many batches is exact.
        seed: of the draw.

    Returns:
        At most `min(count, F)` distinct picks; fewer only if the strategy has picked fewer than its part.

    Raises:
        ValueError: the share is outside of `[0, 1]`.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"the control arm's share must be in [0, 1], not {share}")
    random = np.random.default_rng([seed, 0xC0])  # a separate random stream: strategies use the plain seed
    owed = min(count, int(free.size))
    exact = share * owed
    drawn_count = int(exact) + int(random.random() < exact - int(exact))
    drawn = [Pick(int(row), 0.0, Reason.CONTROL) for row in random.choice(free, drawn_count, replace=False)]
    drawn_indices = {pick.index for pick in drawn}
    chosen = [pick for pick in picks if pick.index not in drawn_indices][: owed - drawn_count]
    return _spread(chosen, drawn)


def _spread(chosen: Sequence[Pick], drawn: Sequence[Pick]) -> list[Pick]:
    """Merges both lists in their order, with `drawn` spread evenly."""
    total = len(chosen) + len(drawn)
    places = {int((turn + 0.5) * total / len(drawn)) for turn in range(len(drawn))} if drawn else set()
    rest, controls = iter(chosen), iter(drawn)
    return [next(controls) if position in places else next(rest) for position in range(total)]
