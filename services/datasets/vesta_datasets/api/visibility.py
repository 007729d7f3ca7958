"""Visibility of items by role. Predictions are hidden from annotators, so that their answers are independent of the model."""

from collections.abc import Iterable

from vesta_common import trace
from vesta_common.errors import InvalidArgument, PermissionDenied
from vesta_common.messages import without
from vesta_common.resources.etags import with_etag
from vesta_common.resources.filters import Where
from vesta_contracts.datasets.v1 import Item

from vesta_datasets.items.filters import item_filter

_ANSWERING_ROLE = "annotator"


def visible(items: Iterable[Item]) -> list[Item]:
    """Returns the items without the fields that the caller may not see. The etag is computed from the remaining fields."""
    if _sees_predictions():
        return list(items)
    return [with_etag(without(item, "prediction")) for item in items]


def visible_filter(text: str) -> Where:
    """Compiles a filter, and checks that the caller may see the fields that it uses.

    Raises:
        InvalidArgument: FILTER_INVALID.
        PermissionDenied: PREDICTION_HIDDEN.
    """
    where = item_filter(text)
    if not _sees_predictions():
        try:
            item_filter(text, predictions=False)
        except InvalidArgument as error:
            raise _hidden("filter by fields other than predictions") from error
    return where


def check_sees_predictions(fix: str) -> None:
    """Checks that the caller may see predictions.

    Args:
        fix: what the error message suggests instead.

    Raises:
        PermissionDenied: PREDICTION_HIDDEN.
    """
    if not _sees_predictions():
        raise _hidden(fix)


def _sees_predictions() -> bool:
    return trace.role() != _ANSWERING_ROLE


def _hidden(fix: str) -> PermissionDenied:
    return PermissionDenied(
        "annotators cannot see predictions, because their answers are used to measure "
        f"models; {fix}, or ask an owner for another role",
        reason="PREDICTION_HIDDEN",
    )
