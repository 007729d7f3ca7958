"""Which of several decisions on an item stands: the latest, in whatever order they arrive. Pure."""

from datetime import UTC, datetime, timedelta

from vesta_common.messages import copy_of
from vesta_contracts.datasets.v1 import AcceptedAnnotations

_TICK = timedelta(microseconds=1)  # the resolution of PostgreSQL's times, and of accept_time in manifests


def latest(kept: AcceptedAnnotations | None, made: AcceptedAnnotations) -> AcceptedAnnotations:
    """The decision that stands after both were made.

    The later accept time wins; of equal times the greater task name, so that every order of arrival ends alike. A decision about the
    same task at the same time replaces the one that is kept: it is a repeat. An item that the control arm drew stays marked so.

    Args:
        kept: what is accepted for the item; None where nothing is.
        made: another decision.
    """
    if kept is None:
        return made
    return copy_of(made if _order(made) >= _order(kept) else kept, control=kept.control or made.control)


def decide_time(kept: AcceptedAnnotations | None, now: datetime) -> datetime:
    """The accept time of a decision that is made in sight of the one that is kept: now, or just after that one.

    The clocks of two services differ; without this a correction would lose to the answer that it corrects.
    """
    if kept is None:
        return now
    return max(now, kept.accept_time.ToDatetime(UTC) + _TICK)


def _order(decision: AcceptedAnnotations) -> tuple[int, str]:
    """Decisions compare by this. An unset time counts as the oldest."""
    return decision.accept_time.ToMicroseconds(), decision.task
