"""Deletes the child resources of Projects in state DELETING in repeated passes, until nothing is left.

A pass lists what exists and deletes it, one kind after another. It stores no plan: after a kill, the next pass continues with what is
left. Loops are deleted first, so that they create nothing new.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from vesta_common.backoff import exponential_backoff
from vesta_common.clock import Clock
from vesta_common.errors import Aborted, FailedPrecondition, NotFound, VestaError
from vesta_common.leases import LeaseLost
from vesta_common.storage.postgres import Postgres

from vesta_conductor import store
from vesta_conductor.projects.child_resources import LISTED_MAX, ChildResource
from vesta_conductor.store.deletions import (
    ClaimedDeletion,
    claim_deletion,
    deletion_heartbeat,
    end_deletion,
    put_deletion,
)

POLL_INTERVAL = timedelta(seconds=1)
PASS_INTERVAL = timedelta(seconds=2)  # until the next pass
BACKOFF_FIRST = timedelta(seconds=1)
BACKOFF_MAX = timedelta(minutes=1)
# A call that was in progress when the deletion began may still create a resource. It has ended after this time: the gateway ends calls
# after two minutes, services call each other for at most half a minute, and every gateway rejects new calls within seconds.
SETTLED = timedelta(seconds=150)

log = structlog.get_logger()


class Deletions:
    """Processes the Projects whose next pass is due, one after another. Any number of replicas may run.

    Args:
        kinds: the kinds of resources in other services, in the order of deletion.
    """

    def __init__(self, postgres: Postgres, kinds: Sequence[ChildResource], clock: Clock) -> None:
        self._postgres = postgres
        self._kinds = kinds
        self._clock = clock

    def count(self, project: str) -> dict[str, int]:
        """Counts the resources of each kind that a Project contains, by plural, without zeros. Stops at `LISTED_MAX` per kind.

        Raises:
            VestaError: a service returned an error.
        """
        with self._postgres.transaction() as connection:
            loops = store.count_loops(connection, project)
        counts = {"loops": loops, **{kind.plural: len(kind.names(project)) for kind in self._kinds}}
        return {plural: count for plural, count in counts.items() if count}

    def step(self) -> bool:
        """Runs the pass that has been due longest; returns False if none is due."""
        began = self._clock.now()
        with self._postgres.transaction() as connection:
            claimed = claim_deletion(connection, began)
        if claimed is None:
            return False
        try:
            self._attempt(claimed, began)
        except LeaseLost as error:
            log.warning("deletion_taken_over", project=claimed.project.name, error=str(error))
        return True

    def _attempt(self, claimed: ClaimedDeletion, began: datetime) -> None:
        project = claimed.project
        try:
            with deletion_heartbeat(self._postgres, claimed, self._clock):
                remaining = self._pass(project.name)
        except VestaError as error:
            log.warning("deletion_postponed", project=project.name, reason=error.reason, error=error.message)
            failures = claimed.failures + 1
            due_time = self._clock.now() + exponential_backoff(failures, BACKOFF_FIRST, BACKOFF_MAX)
            self._store_pass(claimed, f"A service does not respond: {error.message}", due_time, failures)
            return
        settled = project.delete_time.ToDatetime(began.tzinfo) + SETTLED
        if remaining:
            self._store_pass(claimed, remaining, self._clock.now() + PASS_INTERVAL)
        elif began < settled:
            self._store_pass(claimed, "All resources are deleted. Waits for calls in progress to end.", settled)
        else:
            with self._postgres.transaction() as connection:
                end_deletion(connection, claimed, self._clock.now())
            log.info("project_deleted", project=project.name)

    def _pass(self, project: str) -> str:
        """Deletes what exists. Begins with a kind only when the kinds before it are gone.

        Returns:
            A description of what is left; empty if nothing is.
        """
        with self._postgres.transaction() as connection:
            store.delete_loops_of_project(connection, project)
        for kind in self._kinds:
            if remaining := _clear(kind, project):
                return remaining
        return ""

    def _store_pass(self, claimed: ClaimedDeletion, message: str, due_time: datetime, failures: int = 0) -> None:
        with self._postgres.transaction() as connection:
            put_deletion(connection, claimed, message, due_time, failures)


def counts_in_words(counts: dict[str, int]) -> str:
    """Formats counts, such as `2 datasets, 1000 or more trainingRuns`."""
    return ", ".join(f"{count}{' or more' if count >= LISTED_MAX else ''} {plural}" for plural, count in counts.items())


def _clear(kind: ChildResource, project: str) -> str:
    """Deletes all resources of one kind that can be deleted now; returns a description of what is left."""
    last_error = ""
    for name in kind.names(project):
        try:
            kind.delete(name)
        except NotFound:
            continue
        except (FailedPrecondition, Aborted) as error:
            last_error = error.message
    remaining = kind.names(project)
    return f"{counts_in_words({kind.plural: len(remaining)})} left. {last_error}".strip() if remaining else ""
