"""How a filter of items uses the indexes. Pure.

The conditions of a filter that must all be true are divided: facets and creation time restrict the range of an index in list order,
a term (a label, a predicted label, a source, or else a range of a figure of objects) selects the index, and the rest is checked for each
item that the index finds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from vesta_common.resources.filters import Combination, Comparison, Condition, Where, conjuncts, sql_of

from vesta_datasets.items.facets import FacetFilter, allowed_facets, is_about_facets
from vesta_datasets.items.figure_terms import FigureRanges, figure_ranges

_KINDS: Final = {
    "label": ("label:",),
    "labels": ("label:",),
    "concept": ("label:", "shape:"),
    "predicted": ("predicted:",),
    "source": ("source:",),
}
"""The kinds of terms of each field, those that fewer items have first. The function `item_terms_of` of the database has the same."""
_EXACT: Final = ("file_name", "sha256")


@dataclass(frozen=True)
class ListPlan:
    """How items are found.

    Attributes:
        terms: terms of which a matching item has at least one; empty if the filter has no such condition.
        is_range: whether the terms follow each other in the order of the index, and a dataset has few of them.
        more_terms: further such lists of terms.
        excluded_terms: lists of terms of which a matching item has none; empty if `terms` is.
        times: SQL conditions on `items.create_time`.
        time_min: no item that was created before matches; None if the filter sets no such bound.
        exact: a field that must equal a value, of which few items have the same one; with its value.
        rest: the SQL conditions that are checked for each item.
    """

    facets: FacetFilter
    terms: tuple[str, ...]
    is_range: bool
    more_terms: tuple[tuple[str, ...], ...]
    excluded_terms: tuple[tuple[str, ...], ...]
    times: tuple[str, ...]
    time_min: datetime | None
    exact: Comparison | None
    rest: tuple[str, ...]


def list_plan(where: Where) -> ListPlan:
    """Returns how the items that match a filter are found."""
    terms: list[tuple[int, tuple[str, ...]]] = []
    times, time_min, rest, exact = [], list[datetime](), [], None
    negated: list[tuple[Condition, tuple[str, ...]]] = []
    figures: list[tuple[Comparison, FigureRanges]] = []
    for condition in conjuncts(where.condition):
        if found := _terms(condition):
            terms.append((_rank(found), found))
        elif found := _negated_terms(condition):
            negated.append((condition, found))
        elif isinstance(condition, Comparison) and (ranges := figure_ranges(condition)):
            figures.append((condition, ranges))
        elif isinstance(condition, Comparison) and condition.field == "create_time" and condition.operator != "!=":
            times.append(_indexable(condition))
            if condition.operator in ("=", ">", ">="):
                time_min.append(condition.value)
        elif not is_about_facets(condition):
            rest.append(_indexable(condition))
            if isinstance(condition, Comparison) and condition.field in _EXACT and condition.operator == "=":
                exact = condition
    ordered = [found for _, found in sorted(terms)]
    in_ranges, unsure = _by_figure(figures) if not ordered and exact is None else ((), [one for one, _ in figures])
    if in_ranges:
        ordered = [in_ranges]
    rest += [_indexable(comparison) for comparison in unsure]
    if not ordered:
        rest += [sql_of(condition) for condition, _ in negated]
    return ListPlan(
        allowed_facets(where.condition),
        ordered[0] if ordered else (),
        bool(in_ranges),
        tuple(ordered[1:]),
        tuple(found for _, found in negated) if ordered else (),
        tuple(times),
        max(time_min, default=None),
        exact,
        tuple(rest),
    )


def _by_figure(figures: Sequence[tuple[Comparison, FigureRanges]]) -> tuple[tuple[str, ...], list[Comparison]]:
    """Returns the terms of the figure with the fewest ranges, and the comparisons that must be checked for the items with these terms."""
    common: dict[str, FigureRanges] = {}
    for _, found in figures:
        common[found.figure] = common[found.figure].within(found) if found.figure in common else found
    usable = [found for found in common.values() if found.ranges and not found.absent]
    if not usable:
        return (), [comparison for comparison, _ in figures]
    best = min(usable, key=lambda found: (len(found.ranges), found.figure))
    return best.terms, [one for one, found in figures if not (found.exact and found.figure == best.figure)]


def _indexable(condition: Condition) -> str:
    """Returns the SQL of a condition without `coalesce` if it compares a column, of which none is NULL, so that an index can be used."""
    text = sql_of(condition)
    if isinstance(condition, Comparison) and text.startswith("coalesce(items."):
        return text.removeprefix("coalesce(").removesuffix(", FALSE)")
    return text


def _terms(condition: Condition) -> tuple[str, ...]:
    """Returns the terms of which an item that meets the condition has one; empty if the condition is not about terms alone."""
    if isinstance(condition, Comparison):
        if condition.operator not in ("=", ":") or condition.field not in _KINDS or not condition.value:
            return ()  # an empty source is no term
        return tuple(kind + condition.value for kind in _KINDS[condition.field])
    if condition.word == "NOT":
        return ()
    parts = [_terms(part) for part in condition.parts]
    if condition.word == "OR" and all(parts):
        return tuple(dict.fromkeys(term for part in parts for term in part))
    return ()


def _negated_terms(condition: Condition) -> tuple[str, ...]:
    """Returns the terms of which an item that meets the condition has none; empty if the condition is not such a negation."""
    if isinstance(condition, Combination):
        return _terms(condition.parts[0]) if condition.word == "NOT" else ()
    return _terms(replace(condition, operator="=")) if condition.operator == "!=" else ()


def _rank(terms: tuple[str, ...]) -> int:
    kinds = ["label", "shape", "predicted", "source"]
    return max(kinds.index(term.partition(":")[0]) for term in terms)
