"""Reconciles one Loop once: observes, decides, stores the pending command, executes it, records the decision.

The process may be killed between any two of these. Before the pending command is stored, nothing has happened. Afterwards the same
command is sent again, and the service that receives it handles the repeat idempotently. The decision is recorded in one transaction.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import structlog
from vesta_common.backoff import exponential_backoff
from vesta_common.clock import Clock
from vesta_common.errors import Aborted, VestaError, is_transient
from vesta_common.events.cloudevents import new_event
from vesta_common.events.outbox import publish
from vesta_common.events.summaries import summarised
from vesta_common.leases import Lease
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.conductor.v1 import LoopDecided, LoopRoundCompleted, LoopStatus

from vesta_conductor import store
from vesta_conductor.commands import execute
from vesta_conductor.execution.control_answers import ControlAnswers
from vesta_conductor.execution.observe import observe
from vesta_conductor.metrics import ConductorMetrics
from vesta_conductor.peers import Peers
from vesta_conductor.reconciliation.names import LoopNames
from vesta_conductor.reconciliation.policy import Policy
from vesta_conductor.reconciliation.reconcile import reconcile
from vesta_conductor.reconciliation.state import Command, RoundRecord, Situation, Step
from vesta_conductor.reconciliation.status import status_of
from vesta_conductor.store import StoredLoop
from vesta_conductor.store.loop_queue import verify_loop

NO_DELAY = timedelta(0)
WAITING_INTERVAL = timedelta(seconds=5)  # while a Loop waits for something, in case an event is lost
SETTLING_INTERVAL = timedelta(seconds=1)  # while the dataset does not yet contain answers that were accepted
RESYNC_INTERVAL = timedelta(seconds=60)  # while nothing is expected, in case an event is lost
BACKOFF_FIRST = timedelta(seconds=1)
BACKOFF_MAX = timedelta(minutes=1)
REJECTIONS_MAX = (
    3  # rejected requests in a row that may be temporary, such as for a resource that is still being created
)
WAITING_PHASES = (
    LoopStatus.EMBEDDING,
    LoopStatus.SELECTING,
    LoopStatus.LABELLING,
    LoopStatus.TRAINING,
    LoopStatus.DEPLOYING,
    LoopStatus.SCORING,
)

log = structlog.get_logger()


class Driver:
    """Reconciles Loops. Thread-safe, provided that each Loop is reconciled by one thread at a time."""

    def __init__(self, postgres: Postgres, peers: Peers, clock: Clock, metrics: ConductorMetrics) -> None:
        self._postgres = postgres
        self._peers = peers
        self._clock = clock
        self._metrics = metrics
        self._control = ControlAnswers()

    def turn(self, loop: str, failures: int = 0, lease: Lease | None = None) -> timedelta | None:
        """Reconciles a Loop once.

        Args:
            failures: consecutive failed reconciliations before this one.
            lease: of the worker. What it writes is rolled back if the lease is lost.

        Returns:
            The delay until the next reconciliation. None if this one failed, for example because a service failed without a
            `retry_after`: the caller then applies an exponential backoff.

        Raises:
            LeaseLost: another worker has claimed the Loop, or it was deleted.
        """
        with self._postgres.transaction() as connection:
            stored = store.load(connection, loop)
        if stored is None:
            return RESYNC_INTERVAL
        stored = replace(stored, lease=lease)
        try:
            return (
                self._repeat(stored, *stored.pending)
                if stored.pending and not stored.loop.paused
                else self._reconcile(stored)
            )
        except VestaError as error:
            rest = error.retry_after if is_transient(error) else None
            delay = rest or exponential_backoff(failures + 1, BACKOFF_FIRST, BACKOFF_MAX)
            self._report_failure(stored, error, failures, delay)
            return rest

    @contextmanager
    def _writing(self, stored: StoredLoop) -> Iterator[Connection]:
        """Runs the block in a transaction, which is rolled back if the worker has lost its lease."""
        with self._postgres.transaction() as connection:
            yield connection
            if stored.lease is not None:
                verify_loop(connection, stored.lease)

    def _reconcile(self, stored: StoredLoop) -> timedelta | None:
        names, policy = LoopNames(stored.loop.name, stored.loop.policy.dataset), Policy.of(stored.loop.policy)
        now = self._clock.now()
        situation = Situation(
            names=names,
            uid=stored.uid,
            policy=policy,
            observed=observe(self._peers, names, policy, stored.history, self._control, now),
            history=stored.history,
            now=now,
            paused=stored.loop.paused,
            policy_revision=stored.policy_revision,
        )
        step = reconcile(situation)
        while step.question is not None:
            selection = self._peers.items.SelectItems(step.question)
            situation = replace(situation, observed=situation.observed.with_answer(step.question, selection))
            step = reconcile(situation)
        status = status_of(situation, step)
        if status.accepted_errors.exceeded:
            self._metrics.error_limit_exceeded.labels(stored.loop.name).inc()
        if step.command is None:
            self._store_step(stored, step, status)
            return _resync_delay(situation, step)
        return self._execute(stored, step.command, step.round or stored.history.current, status)

    def _repeat(self, stored: StoredLoop, command: Command, record: RoundRecord) -> timedelta | None:
        """Sends a command again whose outcome is unknown.

        Discards a command of a round that has ended: it would repeat what later rounds build on.
        """
        if record.number != stored.history.current.number:
            with self._writing(stored) as connection:
                store.delete_pending(connection, stored.loop.name, command)
            return NO_DELAY
        log.info("command_repeated", loop=stored.loop.name, action=command.action, request_id=command.request_id)
        self._send(stored, command)
        return self._record(stored, command, record, stored.loop.status)

    def _execute(
        self, stored: StoredLoop, command: Command, record: RoundRecord, status: LoopStatus
    ) -> timedelta | None:
        if command.request is not None:
            with self._writing(stored) as connection:
                if not store.exists(connection, stored.loop.name, stored.uid):
                    return RESYNC_INTERVAL
                store.put_pending(connection, stored.loop.name, command, command.request, record)
            self._send(stored, command)
        return self._record(stored, command, record, status)

    def _send(self, stored: StoredLoop, command: Command) -> None:
        """Executes a command. Deletes the pending command if the error shows that it had no effect. Raises the service's error."""
        assert command.request is not None
        try:
            execute(self._peers, command.request)
        except VestaError as error:
            if not is_transient(error) or isinstance(
                error, Aborted
            ):  # after Aborted the command is decided again from the current state
                with self._writing(stored) as connection:
                    store.delete_pending(connection, stored.loop.name, command)
            raise

    def _record(
        self, stored: StoredLoop, command: Command, record: RoundRecord, status: LoopStatus
    ) -> timedelta | None:
        """Records the decision and the state of the round in one transaction, and publishes the events.

        Returns:
            None if the decision was recorded before: an immediate reconciliation might repeat forever.
        """
        name, now = stored.loop.name, self._clock.now()
        with self._writing(stored) as connection:
            if not store.exists(connection, name, stored.uid):
                return RESYNC_INTERVAL
            store.delete_pending(connection, name, command)
            decision = store.insert_decision(connection, name, command, record.number, now)
            if decision is None:
                log.warning("decision_repeated", loop=name, action=command.action, request_id=command.request_id)
                return None
            publish(connection, new_event("conductor", name, LoopDecided(loop=name, decision=decision), now))
            if command.outcome is None:
                store.put_round(connection, name, record)
            else:
                ended = store.end_round(connection, name, record, command.outcome, stored.policy_revision, now)
                completed = summarised(LoopRoundCompleted(loop=name, round=ended))
                publish(connection, new_event("conductor", name, completed, now))
            store.put_status(connection, stored, status)
        self._metrics.commands.labels(command.action).inc()
        log.info("loop_decided", loop=name, action=command.action, reason=command.reason, round=record.number)
        return NO_DELAY

    def _store_step(self, stored: StoredLoop, step: Step, status: LoopStatus) -> None:
        with self._writing(stored) as connection:
            if not store.exists(connection, stored.loop.name, stored.uid):
                return
            if step.round is not None and step.round != stored.history.current:
                store.put_round(connection, stored.loop.name, step.round)
            store.put_status(connection, stored, status)

    def _report_failure(self, stored: StoredLoop, error: VestaError, failures: int, rest: timedelta) -> None:
        """Sets the status message to the error. Repeated rejections set the phase to BLOCKED."""
        status = LoopStatus()
        status.CopyFrom(stored.loop.status)
        seconds = round(rest.total_seconds())
        if is_transient(error):
            status.message = f"A service does not respond: {error.message} Next attempt in {seconds} s."
        else:
            status.phase = LoopStatus.BLOCKED if failures >= REJECTIONS_MAX else status.phase
            status.message = f"Command failed: {error.message} ({error.reason}) Next attempt in {seconds} s."
        status.reconcile_time.FromDatetime(self._clock.now())
        log.warning("loop_postponed", loop=stored.loop.name, reason=error.reason, error=error.message, seconds=seconds)
        with self._writing(stored) as connection:
            store.put_status(connection, stored, status)


def _resync_delay(situation: Situation, step: Step) -> timedelta:
    if situation.paused:
        return RESYNC_INTERVAL
    if situation.observed.unsettled and step.phase == LoopStatus.LABELLING:
        return SETTLING_INTERVAL
    return WAITING_INTERVAL if step.phase in WAITING_PHASES else RESYNC_INTERVAL
