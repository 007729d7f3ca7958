"""The status of the gateway's dependencies: PostgreSQL, events, and the backend services."""

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta

import structlog
from vesta_common.runtime.engine_watch import KAFKA, POSTGRES, EngineWatch, describe_failure
from vesta_common.storage.postgres import Postgres

from vesta_gateway.calls.backends import RemoteBackend
from vesta_gateway.events.tail import Tail

SERVING = "SERVING"
FRESH = timedelta(seconds=1)
FRESH_HEALTHY = timedelta(seconds=3)
"""How long a report without problems is cached: to ask all services and PostgreSQL takes several milliseconds."""

log = structlog.get_logger()


class Dependencies:
    """Reports the status of the dependencies.

    Args:
        watch: monitors the engines and the gateway's own resources.
    """

    def __init__(
        self, postgres: Postgres, tail: Tail | None, remotes: Mapping[str, RemoteBackend], watch: EngineWatch
    ) -> None:
        self._postgres = postgres
        self._watch = watch
        self._tail = tail
        self._remotes = remotes
        self._report: tuple[bool, Mapping[str, str]] = (False, {})
        self._problems: list[str] = []
        self._report_end = 0.0
        self._looking = asyncio.Lock()
        self._is_draining = False

    def drain(self) -> None:
        """Makes the gateway unready permanently, because the process is about to stop."""
        self._is_draining = True

    async def report(self) -> tuple[bool, Mapping[str, str]]:
        """Returns whether the gateway is ready, and the status of each dependency.

        The report is cached for a second, or for three if there are no problems.

        An unavailable backend does not make the gateway unready, because calls to the others still work.
        """
        is_ready, parts = await self._fresh()
        return is_ready and not self._is_draining, parts

    async def problems(self) -> list[str]:
        """Returns the current problems as sentences with a suggested fix. Cached like the report."""
        await self._fresh()
        return self._problems

    async def _fresh(self) -> tuple[bool, Mapping[str, str]]:
        async with self._looking:
            if time.monotonic() >= self._report_end:
                self._report = await self._look()
                is_healthy = not self._problems and all(state == SERVING for state in self._report[1].values())
                self._report_end = time.monotonic() + (FRESH_HEALTHY if is_healthy else FRESH).total_seconds()
            return self._report

    async def _look(self) -> tuple[bool, Mapping[str, str]]:
        own, *responses = await asyncio.gather(
            asyncio.to_thread(self._postgres_problem), *(remote.problems() for remote in self._remotes.values())
        )
        has_postgres = not own
        reported = zip(self._remotes, responses, strict=True)
        watched = self._watch.problems()
        if any(problem.startswith(POSTGRES) for problem in watched):
            own = []  # the watch reports more details, because it opens a new connection
        self._problems = [f"gateway: {problem}" for problem in [*own, *watched]]
        self._problems += [f"{name}: {problem}" for name, problems in reported for problem in problems]
        states = {"postgres": has_postgres}
        if self._tail is not None:
            states["events"] = self._tail.healthy()
            if not states["events"] and not any(problem.startswith(KAFKA) for problem in watched):
                self._problems.append("gateway: Kafka does not respond; check that it is running, and KAFKA_BOOTSTRAP")
        states |= {name: remote.is_connected() for name, remote in self._remotes.items()}
        return has_postgres, {name: SERVING if is_fine else "NOT_SERVING" for name, is_fine in states.items()}

    def _postgres_problem(self) -> list[str]:
        try:
            self._postgres.ping()
        except Exception as error:  # noqa: BLE001 - any error means that PostgreSQL is unavailable
            log.warning("postgres_unavailable", error=str(error).strip())
            return [describe_failure(POSTGRES, error)]
        return []
