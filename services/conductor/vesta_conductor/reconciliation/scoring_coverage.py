"""When enough items have been looked at by a model to go on."""

BATCHES_MIN = 5  # a selection looks at several batches' worth
SHARE_MIN = 0.95  # the rest may be on its way, or may never be readable


def enough(done_count: int, item_count: int, batch_size: int, *, finished: bool = False) -> bool:
    """True where all items are done, or nearly all of a number that is large beside a batch.

    Args:
        finished: whether the one who does it says that no more is coming; then nearly all will do for few items too.
    """
    if done_count >= item_count:
        return True
    nearly_all = done_count >= SHARE_MIN * item_count
    return nearly_all and (finished or done_count >= BATCHES_MIN * batch_size)
