"""Lists of items that match a filter, in order of creation, found by indexes in that order."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from vesta_common.resources.filters import Where
from vesta_common.storage.postgres import Connection

from vesta_datasets.items.list_plan import ListPlan, list_plan


class ListPosition(NamedTuple):
    """The position of an item in the list order."""

    create_time: datetime
    name: str


FIRST: Final = ListPosition(datetime.min.replace(tzinfo=UTC), "")


def list_rows(
    connection: Connection, dataset: str, where: Where, after: ListPosition, limit: int, *, names_only: bool = False
) -> Iterator[dict[str, Any]]:
    """Returns the rows of up to `limit` items that match the filter and follow the position.

    Args:
        names_only: whether the rows have only `create_time` and `name`, which indexes have.
    """
    statement, values = statement_of(dataset, where, after, limit)
    if not names_only:
        statement = _WHOLE.format(page=statement)
    return iter(connection.execute(statement.encode(), values))


def statement_of(
    dataset: str, where: Where, after: ListPosition, limit: int | None, *, is_ordered: bool = True
) -> tuple[str, dict[str, Any]]:
    """Returns the statement that finds the names of a page, compiled from constants and placeholders, and its values.

    The numbers of `facets` in the dataset are read from its counts. For each that the filter allows, an index has the items in list
    order; the lists are merged. The time therefore depends on the size of the page, and on the number of items only where a condition
    is checked for each.
    """
    plan = list_plan(where)
    if plan.time_min is not None:  # an index is read from one position
        after = max(after, ListPosition(plan.time_min, ""))
    values = {
        "dataset": dataset,
        "after_time": after.create_time,
        "after": after.name,
        "limit": limit,
        "facets_mask": plan.facets.mask,
        "facets": plan.facets.values,
        "terms": list(plan.terms),
        "term_min": min(plan.terms, default=""),
        "term_max": max(plan.terms, default=""),
        **{f"terms_{index}": list(terms) for index, terms in enumerate(plan.more_terms)},
        **{f"excluded_{index}": list(terms) for index, terms in enumerate(plan.excluded_terms)},
        **where.parameters,
    }
    if plan.exact is None:
        return _statement(plan, is_ordered=is_ordered), values
    return _EXACT.format(field=plan.exact.field, where=where.sql), {**values, "exact": plan.exact.value}


def ids_statement(dataset: str, where: Where, limit: int | None) -> tuple[str, dict[str, Any]]:
    """Returns the statement that finds the ids of up to `limit` items that match a filter, one per line, and its values.

    They are in no order, and some may occur several times: otherwise, the statement would take twice as long.
    """
    statement, values = statement_of(dataset, where, FIRST, limit, is_ordered=False)
    return _IDS.format(page=statement), {**values, "id_start": len(f"{dataset}/items/") + 1}


def matching_statement(names: Sequence[str], where: Where, limit: int) -> tuple[str, dict[str, Any]]:
    """Returns the statement that finds which of the items match a filter, in the order of the names, and its values."""
    return _MATCHING.format(where=where.sql), {"names": list(names), "limit": limit, **where.parameters}


def _statement(plan: ListPlan, *, is_ordered: bool) -> str:
    order = _ORDER if is_ordered else ""
    if plan.terms:
        conditions = [condition.replace("items.create_time", "key.create_time") for condition in plan.times]
        joins = ""
        for index, terms in enumerate(plan.more_terms):
            if len(terms) == 1:
                joins += _WITH_TERM.format(index=index)
            else:
                conditions.append(_HAS_TERM.format(index=index))
        conditions += [_WITHOUT_TERM.format(index=index) for index in range(len(plan.excluded_terms))]
        if plan.rest:
            conditions.append(_HAS_REST.format(conditions=_all(*plan.rest)))
        page = _BY_TERM.format(joins=joins, conditions=_all(*conditions))
        if plan.is_range:
            return _OF_RANGE.format(page=page)
        distinct = "DISTINCT" if is_ordered and len(plan.terms) > 1 else ""
        lists = "cells CROSS JOIN unnest(%(terms)s::text[]) AS wanted (term)"
        return _LISTS.format(distinct=distinct, lists=lists, page=page, order=order)
    conditions = [*plan.times, *plan.rest]
    if plan.rest:  # the rows of one number of facets lie scattered, so that all are read in their order
        return _IN_ORDER.format(conditions=_all(_OF_FACETS, *conditions))
    page = _BY_FACETS.format(conditions=_all(*conditions))
    return _LISTS.format(distinct="", lists="cells", page=page, order=order)


def _all(*conditions: str) -> str:
    return " AND ".join(conditions) or "TRUE"


_EXACT = """
SELECT items.create_time, items.name FROM items
WHERE items.dataset = %(dataset)s AND items.{field} = %(exact)s
    AND (items.create_time, items.name) > (%(after_time)s, %(after)s) AND {where}
ORDER BY items.create_time, items.name LIMIT %(limit)s
"""
_LISTS = """
WITH cells AS MATERIALIZED (
    SELECT facets FROM item_counts WHERE dataset = %(dataset)s AND facets & %(facets_mask)s = ANY(%(facets)s)
    GROUP BY facets HAVING sum(count) > 0
)
SELECT {distinct} page.create_time, page.name FROM {lists} CROSS JOIN LATERAL ({page}) AS page {order} LIMIT %(limit)s
"""
_ORDER = "ORDER BY page.create_time, page.name"
# Finds the terms and facets that the dataset has in the range: one entry of the index per list.
_OF_RANGE = """
WITH RECURSIVE entries AS (
    (
        SELECT term, facets FROM item_terms WHERE dataset = %(dataset)s AND term >= %(term_min)s AND term <= %(term_max)s
        ORDER BY dataset, term, facets LIMIT 1
    )
    UNION ALL
    SELECT following.term, following.facets FROM entries CROSS JOIN LATERAL (
        SELECT term, facets FROM item_terms
        WHERE dataset = %(dataset)s AND (item_terms.term, item_terms.facets) > (entries.term, entries.facets)
            AND item_terms.term <= %(term_max)s
        ORDER BY dataset, term, facets LIMIT 1
    ) AS following
), cells AS MATERIALIZED (
    SELECT term, facets FROM entries WHERE facets & %(facets_mask)s = ANY(%(facets)s) AND term = ANY(%(terms)s)
)
SELECT page.create_time, page.name FROM cells CROSS JOIN LATERAL (SELECT cells.term) AS wanted CROSS JOIN LATERAL ({page}) AS page
ORDER BY page.create_time, page.name LIMIT %(limit)s
"""
_WHOLE = """
SELECT items.* FROM ({page}) AS page JOIN items ON items.name = page.name ORDER BY page.create_time, page.name
"""
_IDS = """
SELECT string_agg(substr(convert_to(page.name, 'UTF8'), %(id_start)s), E'\\n'::bytea) AS ids FROM ({page}) AS page
"""
_MATCHING = """
SELECT items.name FROM unnest(%(names)s::text[]) WITH ORDINALITY AS given (name, place) JOIN items ON items.name = given.name
WHERE {where} ORDER BY given.place LIMIT %(limit)s
"""
_BY_FACETS = """
    SELECT items.create_time, items.name FROM items
    WHERE items.dataset = %(dataset)s AND items.facets = cells.facets
        AND (items.create_time, items.name) > (%(after_time)s, %(after)s) AND {conditions}
    ORDER BY items.create_time, items.name LIMIT %(limit)s
"""
_BY_TERM = """
    SELECT key.create_time, key.name FROM item_terms AS key {joins}
    WHERE key.dataset = %(dataset)s AND key.term = wanted.term AND key.facets = cells.facets
        AND (key.create_time, key.name) > (%(after_time)s, %(after)s) AND {conditions}
    ORDER BY key.create_time, key.name LIMIT %(limit)s
"""
_OF_FACETS = "items.facets & %(facets_mask)s = ANY(%(facets)s)"
_IN_ORDER = """
SELECT items.create_time, items.name FROM items
WHERE items.dataset = %(dataset)s AND (items.create_time, items.name) > (%(after_time)s, %(after)s) AND {conditions}
ORDER BY items.create_time, items.name LIMIT %(limit)s
"""
# Both lists are in the same order for the same facets.
_WITH_TERM = """
    JOIN item_terms AS other_{index} ON other_{index}.dataset = key.dataset AND other_{index}.facets = key.facets
        AND other_{index}.create_time = key.create_time AND other_{index}.name = key.name AND other_{index}.term = ANY(%(terms_{index})s)
"""
_WITHOUT_TERM = """NOT EXISTS (
    SELECT FROM item_terms AS other WHERE other.dataset = key.dataset AND other.facets = key.facets
        AND other.create_time = key.create_time AND other.name = key.name AND other.term = ANY(%(excluded_{index})s)
)"""
# The limits keep the planner from joining whole lists.
_HAS_TERM = """(
    SELECT true FROM item_terms AS other WHERE other.dataset = key.dataset AND other.term = ANY(%(terms_{index})s)
        AND other.facets = key.facets AND other.create_time = key.create_time AND other.name = key.name LIMIT 1
) IS TRUE"""
_HAS_REST = "(SELECT true FROM items WHERE items.name = key.name AND {conditions} LIMIT 1) IS TRUE"
