"""Resolves concurrent changes of an item's accepted annotations: the latest applies, in any order of arrival. Pure functions."""

from datetime import UTC, datetime, timedelta

from vesta_common.messages import copy_of
from vesta_contracts.datasets.v1 import AcceptedAnnotations

_TICK = timedelta(microseconds=1)  # the resolution of PostgreSQL's times, and of accept_time in manifests


def latest(stored: AcceptedAnnotations | None, new: AcceptedAnnotations) -> AcceptedAnnotations:
    """Returns the accepted annotations that apply.

    Those with the later accept time apply. If the times are equal, those with the greater task name apply, so that the result does not
    depend on the order of arrival. The same task and time is a redelivery, which replaces the stored annotations. The `control` mark of
    an item is never removed.

    Args:
        stored: the accepted annotations of the item; None if there are none.
        new: those that were accepted now.
    """
    if stored is None:
        return new
    return copy_of(new if _order(new) >= _order(stored) else stored, control=stored.control or new.control)


def next_accept_time(stored: AcceptedAnnotations | None, now: datetime) -> datetime:
    """Returns the accept time of annotations that replace `stored`: now, or just after `stored` if that is later.

    The clocks of two services can differ. Without this rule a correction could count as older than the answer that it corrects.
    """
    if stored is None:
        return now
    return max(now, stored.accept_time.ToDatetime(UTC) + _TICK)


def _order(accepted: AcceptedAnnotations) -> tuple[int, str]:
    """Returns the sort key of accepted annotations. An unset time sorts first."""
    return accepted.accept_time.ToMicroseconds(), accepted.task
