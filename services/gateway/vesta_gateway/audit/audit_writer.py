"""Writes audit entries to PostgreSQL in batches. A call waits until its entry is written."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Counter

from vesta_gateway.store.audit_entries import AuditRow

BATCH_MAX = 500
WRITE_TIMEOUT = timedelta(seconds=5)
REJECTED_WAITING_MAX = 1_000
"""Limit of waiting entries for rejected calls, so that a flood of such calls does not exhaust the memory."""

log = structlog.get_logger()


class AuditWriter:
    """Batches audit entries. Bound to one event loop.

    Args:
        write: writes rows in one transaction; called in a thread.
    """

    def __init__(self, write: Callable[[Sequence[AuditRow]], None], registry: CollectorRegistry) -> None:
        self._write = write
        self._waiting: list[tuple[AuditRow, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._lost = Counter(
            "vesta_gateway_audit_entries_lost_total",
            "Audit entries that could not be stored; those of changes are logged as audit_entry_lost",
            registry=registry,
        )

    async def put(self, row: AuditRow) -> None:
        """Writes a row. If PostgreSQL does not accept it within five seconds, the call continues, because its change is already made."""
        written = self._add(row)
        try:
            await asyncio.wait_for(asyncio.shield(written), WRITE_TIMEOUT.total_seconds())
        except TimeoutError:
            log.warning("audit_entry_delayed", id=row.id)

    def put_without_waiting(self, row: AuditRow) -> None:
        """Queues a row without waiting, for calls that were rejected or cancelled."""
        if len(self._waiting) >= REJECTED_WAITING_MAX:
            self._lost.inc()
            return
        self._add(row)

    async def close(self) -> None:
        """Writes the waiting rows."""
        if self._flushing is not None:
            await self._flushing

    def _add(self, row: AuditRow) -> asyncio.Future[None]:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, written))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return written

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            rows = [row for row, _ in batch]
            if not await self._write_batch(rows):
                self._lost.inc(len(rows))
                for row in rows:
                    log.error("audit_entry_lost", **{**asdict(row), "create_time": row.create_time.isoformat()})
            for _, written in batch:
                if not written.done():
                    written.set_result(None)

    async def _write_batch(self, rows: Sequence[AuditRow]) -> bool:
        try:
            await asyncio.to_thread(self._write, rows)
        except Exception:
            log.exception("audit_write_failed", count=len(rows))
            return False
        return True
