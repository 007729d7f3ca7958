"""The random control arm: the share of every batch that is drawn blindly, and so tells the truth about the rest."""

from collections.abc import Sequence

import numpy as np

from vesta_datasets.selection.pool import Indices, Pick, Reason


def with_control_arm(picks: Sequence[Pick], free: Indices, count: int, share: float, seed: int) -> list[Pick]:
    """Replaces a share of a batch by a uniform draw from the whole unlabelled pool.

    The draw does not look at what the strategy chose: an item that both chose counts as control, and the strategy's
    last picks make room. So every unlabelled item is as likely to be drawn as any other, and the control items are an
    unbiased sample of the unlabelled pool as it is at this moment. They are spread evenly over the batch, so that a
    batch that is cut short keeps its share.

    Args:
        picks: what a strategy chose, at most `count`, in order of priority.
        free: `(F,)` distinct rows of the *whole* unlabelled pool, also those that the strategy could not look at
            because they bear no embedding yet.
        count: size of the batch.
        share: in `[0, 1]`. Where it gives no whole number, chance decides between the two nearest, so that the share
            holds over many small batches.
        seed: of the draw.

    Returns:
        At most `min(count, F)` picks, none twice; fewer only where the strategy chose fewer than its part.

    Raises:
        ValueError: the share is outside `[0, 1]`.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"the control arm's share must be in [0, 1], not {share}")
    random = np.random.default_rng([seed, 0xC0])  # a stream of its own: strategies draw from the bare seed
    owed = min(count, int(free.size))
    exact = share * owed
    drawn_count = int(exact) + int(random.random() < exact - int(exact))
    drawn = [Pick(int(row), 0.0, Reason.CONTROL) for row in random.choice(free, drawn_count, replace=False)]
    taken = {pick.index for pick in drawn}
    chosen = [pick for pick in picks if pick.index not in taken][: owed - drawn_count]
    return _spread(chosen, drawn)


def _spread(chosen: Sequence[Pick], drawn: Sequence[Pick]) -> list[Pick]:
    """Both in their own order, `drawn` evenly among `chosen`."""
    total = len(chosen) + len(drawn)
    places = {int((turn + 0.5) * total / len(drawn)) for turn in range(len(drawn))} if drawn else set()
    rest, controls = iter(chosen), iter(drawn)
    return [next(controls) if place in places else next(rest) for place in range(total)]
