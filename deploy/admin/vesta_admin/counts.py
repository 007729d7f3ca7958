"""Compares the maintained counts of each dataset with its rows, and repairs them."""

from typing import NamedTuple

from vesta_common.storage.postgres import Postgres

_DIFFERENCES = """
SELECT dataset, 'items' AS rows, sum(abs(existing - counted))::bigint AS difference FROM item_count_differences GROUP BY dataset
UNION ALL
SELECT dataset, 'embeddings', sum(abs(existing - counted))::bigint FROM embedding_count_differences GROUP BY dataset
ORDER BY dataset, rows
"""


class Difference(NamedTuple):
    """A dataset whose counts differ from its rows.

    Attributes:
        rows: `items` or `embeddings`.
        difference: the number of rows that are counted wrongly.
    """

    dataset: str
    rows: str
    difference: int


def check_counts(url: str, *, repair: bool) -> list[Difference]:
    """Returns the datasets whose counts differ from their rows. Reads all items; the services may be running.

    Args:
        repair: whether to correct the counts. Changes of items in the meantime are counted correctly.

    Raises:
        psycopg.OperationalError: the server does not respond.
    """
    with Postgres(url, "datasets").connect() as connection:
        connection.execute("SET LOCAL statement_timeout = 0")
        differences = [Difference(**row) for row in connection.execute(_DIFFERENCES)]
        if repair and differences:
            connection.execute("SELECT repair_counts()")
    return differences
