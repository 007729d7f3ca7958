"""Work of the gateway that repeats while it runs: health, retention, and projects that are being deleted."""

import asyncio
from datetime import timedelta

import structlog
from prometheus_client import Gauge
from vesta_common.clock import Clock
from vesta_common.rpc.health import READY, Health
from vesta_common.storage.postgres import Postgres

from vesta_gateway.calls.dependencies import Dependencies
from vesta_gateway.calls.projects import FOLLOW_INTERVAL, Projects
from vesta_gateway.servers import GrpcServer
from vesta_gateway.settings import Settings
from vesta_gateway.store import audit_entries, request_log

PRUNE_INTERVAL = timedelta(minutes=10)
HEALTH_INTERVAL = timedelta(seconds=1)
_GATEWAY_PREFIX = "gateway: "

log = structlog.get_logger()


async def follow_projects(projects: Projects) -> None:
    """Closes projects that are being deleted, including those whose deletion was interrupted by a crash. Runs until it is cancelled."""
    while True:
        try:
            await projects.follow()
        except Exception as error:  # noqa: BLE001 - PostgreSQL or the conductor is unavailable; retried after the interval
            log.debug("project_events_unavailable", error=str(error))
        await asyncio.sleep(FOLLOW_INTERVAL.total_seconds())


async def update_health(dependencies: Dependencies, health: Health, grpc: GrpcServer, problem_count: Gauge) -> None:
    """Updates the health status of both servers and the number of problems. Runs until it is cancelled."""
    was_ready = True
    while True:
        is_ready, _ = await dependencies.report()
        problems = await dependencies.problems()
        grpc.set_problems(problems)
        own = [problem.removeprefix(_GATEWAY_PREFIX) for problem in problems if problem.startswith(_GATEWAY_PREFIX)]
        problem_count.set(len(own))
        health.set_problems(own)
        health.set(READY, serving=is_ready)
        if is_ready != was_ready:
            was_ready = is_ready
            await grpc.set_healthy(healthy=was_ready)
        await asyncio.sleep(HEALTH_INTERVAL.total_seconds())


async def prune(postgres: Postgres, clock: Clock, settings: Settings, is_stopping: asyncio.Event) -> None:
    """Applies the retention of the request log and of the audit log. Runs until it is cancelled.

    Args:
        is_stopping: set to end a deletion of many rows early.
    """
    while True:
        try:
            for prune_log, retention in (
                (request_log.prune, settings.request_log_retention),
                (audit_entries.prune, settings.audit_retention),
            ):
                await asyncio.to_thread(prune_log, postgres, clock.now(), retention, is_stopping=is_stopping.is_set)
        except Exception:
            log.exception("prune_failed")
        await asyncio.sleep(PRUNE_INTERVAL.total_seconds())
