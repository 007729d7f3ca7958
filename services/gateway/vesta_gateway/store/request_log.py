"""Deletion of old entries of the request log, which makes retries idempotent."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from vesta_common.resources import idempotency
from vesta_common.storage.postgres import Postgres

from vesta_gateway.store.statements import PRUNE_BATCH_MAX

log = structlog.get_logger()


def prune(
    postgres: Postgres,
    now: datetime,
    retention: timedelta,
    *,
    batch_max: int = PRUNE_BATCH_MAX,
    is_stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Deletes requests older than `retention` in batches, each in its own transaction. Returns the number of deleted entries. Blocks.

    Args:
        is_stopping: checked before each batch; True ends the deletion early.
    """
    deleted, batch = 0, batch_max
    while batch == batch_max and not is_stopping():
        with postgres.transaction() as connection:
            batch = idempotency.prune(connection, now, retention, batch_max)
        deleted += batch
    if deleted:
        log.info("request_log_pruned", count=deleted)
    return deleted
