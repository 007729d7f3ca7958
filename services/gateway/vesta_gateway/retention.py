"""Retention of the request log: deletes the first answers of requests that are older than the retention, in batches."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from vesta_common import idempotency
from vesta_common.postgres import Postgres

log = structlog.get_logger()

PRUNE_INTERVAL = timedelta(minutes=10)
BATCH_MAX = 1_000
"""Entries deleted in one transaction, so that none holds locks for long."""


def prune_request_log(
    postgres: Postgres,
    now: datetime,
    retention: timedelta,
    *,
    batch_max: int = BATCH_MAX,
    is_stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Deletes every request older than `retention`; returns how many. Each batch commits by itself. It blocks.

    Args:
        is_stopping: asked before each batch; True ends the work early.
    """
    deleted, batch = 0, batch_max
    while batch == batch_max and not is_stopping():
        with postgres.transaction() as connection:
            batch = idempotency.prune(connection, now, retention, batch_max)
        deleted += batch
    if deleted:
        log.info("request_log_pruned", count=deleted)
    return deleted
