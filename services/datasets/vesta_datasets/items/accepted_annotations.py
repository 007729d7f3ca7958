"""Resolves concurrent decisions on an item: the latest one applies, in whatever order they arrive. Pure functions."""

from datetime import UTC, datetime, timedelta

from vesta_common.messages import copy_of
from vesta_contracts.datasets.v1 import AcceptedAnnotations

_TICK = timedelta(microseconds=1)  # the resolution of PostgreSQL's times, and of accept_time in manifests


def latest(kept: AcceptedAnnotations | None, made: AcceptedAnnotations) -> AcceptedAnnotations:
    """Returns the decision that applies.

    The decision with the later accept time applies. If the times are equal, the one with the greater task name applies, so that the
    result does not depend on the order of arrival. A decision of the same task and time is a repeat and replaces the stored one. The
    `control` mark of an item is never removed.

    Args:
        kept: the stored decision; None if there is none.
        made: the new decision.
    """
    if kept is None:
        return made
    return copy_of(made if _order(made) >= _order(kept) else kept, control=kept.control or made.control)


def decide_time(kept: AcceptedAnnotations | None, now: datetime) -> datetime:
    """Returns the accept time of a decision that replaces `kept`: now, or just after `kept` if that is later.

    The clocks of two services can differ. Without this rule a correction could count as older than the answer that it corrects.
    """
    if kept is None:
        return now
    return max(now, kept.accept_time.ToDatetime(UTC) + _TICK)


def _order(decision: AcceptedAnnotations) -> tuple[int, str]:
    """Returns the sort key of decisions. An unset time sorts first."""
    return decision.accept_time.ToMicroseconds(), decision.task
