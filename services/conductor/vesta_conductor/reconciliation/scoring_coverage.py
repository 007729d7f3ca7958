"""Decides whether a model has scored or embedded enough items to continue."""

BATCHES_MIN = 5  # a selection chooses among several batches of items
SHARE_MIN = 0.95  # the others may still be in progress, or may never be readable


def enough(done_count: int, item_count: int, batch_size: int, *, finished: bool = False) -> bool:
    """Whether all items are done, or nearly all of a number that is large relative to a batch.

    Args:
        finished: whether the model has gone through all items; nearly all are then enough for a small number too.
    """
    if done_count >= item_count:
        return True
    nearly_all = done_count >= SHARE_MIN * item_count
    return nearly_all and (finished or done_count >= BATCHES_MIN * batch_size)
