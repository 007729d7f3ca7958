"""Stores Projects, Loops, rounds and decisions in PostgreSQL. Converts rows to messages and to the types of reconciliation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from vesta_common.ids import new_id
from vesta_common.leases import Lease
from vesta_common.messages import set_times
from vesta_common.storage.postgres import Connection
from vesta_contracts.conductor.v1 import Decision, Loop, LoopPolicy, LoopStatus, Project, Round

from vesta_conductor.commands import request_of
from vesta_conductor.reconciliation.round_updates import with_updates
from vesta_conductor.reconciliation.state import Command, History, RoundOutcome, RoundRecord
from vesta_conductor.store.rows import project_of
from vesta_conductor.store.statements import queries

ROUNDS_SHOWN_MAX = 100  # the newest rounds of a Loop: responses have a size limit
SEQUENCE_MAX = 2**63 - 1


@dataclass(frozen=True)
class StoredLoop:
    """A stored Loop: the public message, and what only the conductor needs.

    Attributes:
        loop: with its status, without the rounds.
        pending: a command whose outcome is unknown, with the round as it is after the command.
        lease: of the worker that reconciles the Loop; None outside the queue.
    """

    loop: Loop
    uid: str
    policy_revision: int
    history: History
    pending: tuple[Command, RoundRecord] | None
    lease: Lease | None = None


def insert_project(connection: Connection, project: Project, now: datetime) -> bool:
    """Inserts a Project; returns False if its name is taken."""
    return bool(queries.insert_project(connection, name=project.name, display_name=project.display_name, now=now))


def find_project(connection: Connection, name: str, *, lock: bool = False) -> Project | None:
    row = (queries.lock_project if lock else queries.find_project)(connection, name=name)
    return project_of(row) if row else None


def list_projects(
    connection: Connection, names: Sequence[str], after: str, limit: int, *, show_deleted: bool = False
) -> list[Project]:
    """Returns Projects ordered by name; only those of `names`, or all if `names` is empty."""
    rows = queries.list_projects(connection, names=list(names), after=after, limit=limit, show_deleted=show_deleted)
    return [project_of(row) for row in rows]


def begin_deletion(connection: Connection, name: str, message: str, now: datetime) -> None:
    """Sets an ACTIVE Project to DELETING; its first pass is due immediately."""
    queries.begin_deletion(connection, name=name, message=message, now=now)


def delete_loops_of_project(connection: Connection, project: str) -> None:
    """Deletes all Loops of a Project, and the records of earlier deleted ones."""
    queries.delete_loops_of_project(connection, project=project)
    queries.forget_deleted_loops_of_project(connection, project=project)


def schedule_loops_of_dataset(connection: Connection, dataset: str, due_time: datetime) -> None:
    """Makes the Loops of a Dataset due at that time, unless they are due earlier."""
    queries.queue_loops_of_dataset(connection, dataset=dataset, due_time=due_time)


def schedule_loops_of_project(connection: Connection, project: str, due_time: datetime) -> None:
    """Makes the Loops of a Project due at that time, unless they are due earlier."""
    queries.queue_loops_of_project(connection, project=project, due_time=due_time)


def count_loops(connection: Connection, project: str) -> int:
    return int(queries.count_loops(connection, project=project))


def update_project(connection: Connection, project: Project, now: datetime) -> None:
    queries.update_project(connection, name=project.name, display_name=project.display_name, now=now)


def insert_loop(connection: Connection, loop: Loop, project: str, now: datetime) -> bool:
    """Inserts a Loop, opens its first round and queues it; returns False if its name is taken."""
    inserted = queries.insert_loop(
        connection,
        name=loop.name,
        uid=new_id(),
        project=project,
        dataset=loop.policy.dataset,
        display_name=loop.display_name,
        policy=loop.policy.SerializeToString(),
        paused=loop.paused,
        status=loop.status.SerializeToString(),
        now=now,
    )
    if not inserted:
        return False
    ended_before = queries.last_round_of_deleted(connection, name=loop.name) or 0
    put_round(connection, loop.name, _new_round(ended_before + 1, now))
    queries.queue_loop(connection, loop=loop.name, due_time=now)
    return True


def find_loop(connection: Connection, name: str, *, lock: bool = False) -> Loop | None:
    """Returns a Loop with its newest rounds."""
    row = (queries.lock_loop if lock else queries.find_loop)(connection, name=name)
    return _with_rounds(connection, [row])[0] if row else None


def list_loops(connection: Connection, project: str, after: str, limit: int) -> list[Loop]:
    """Returns Loops ordered by name, with their newest rounds."""
    return _with_rounds(connection, list(queries.list_loops(connection, project=project, after=after, limit=limit)))


def update_loop(connection: Connection, loop: Loop, *, policy_changed: bool, now: datetime) -> None:
    """Updates the mutable fields of a Loop, and queues it."""
    queries.update_loop(
        connection,
        name=loop.name,
        display_name=loop.display_name,
        policy=loop.policy.SerializeToString(),
        paused=loop.paused,
        changed=policy_changed,
        now=now,
    )
    queries.queue_loop(connection, loop=loop.name, due_time=now)


def delete_loop(connection: Connection, name: str) -> bool:
    """Deletes a Loop, but records the number of its rounds."""
    queries.remember_last_round(connection, name=name)
    return bool(queries.delete_loop(connection, name=name))


def list_decisions(connection: Connection, loop: str, before: int, limit: int) -> list[tuple[int, Decision]]:
    """Returns a Loop's decisions, newest first, each with its sequence number."""
    rows = queries.list_decisions(connection, loop=loop, before=before, limit=limit)
    return [(row["sequence"], _decision(row)) for row in rows]


def load(connection: Connection, name: str) -> StoredLoop | None:
    """Returns the input of reconciliation that is stored for a Loop; None if the Loop does not exist."""
    row = queries.find_loop(connection, name=name)
    if row is None:
        return None
    *ended, current = [_record(record) for record in queries.list_rounds(connection, loops=[name])]
    decided = {
        decision["request_id"]: decision["decide_time"]
        for decision in queries.list_decisions_of_round(connection, loop=name, round=current.number)
    }
    loop = _loop(row)
    saving = loop.status.label_saving if loop.status.HasField("label_saving") else None
    return StoredLoop(
        loop=loop,
        uid=row["uid"],
        policy_revision=row["policy_revision"],
        history=History(current=current, ended=tuple(ended), decided=decided, label_saving=saving),
        pending=_pending(queries.find_pending(connection, loop=name), current),
    )


def exists(connection: Connection, name: str, uid: str) -> bool:
    """Whether the Loop has not been deleted meanwhile. Locks its row until the transaction ends."""
    row = queries.lock_loop(connection, name=name)
    return row is not None and row["uid"] == uid


def put_status(connection: Connection, stored: StoredLoop, status: LoopStatus) -> None:
    """Stores the status. The Loop's etag does not change."""
    queries.update_status(connection, name=stored.loop.name, uid=stored.uid, status=status.SerializeToString())


def put_round(connection: Connection, loop: str, record: RoundRecord) -> None:
    queries.put_round(
        connection,
        loop=loop,
        number=record.number,
        round=record.round.SerializeToString(),
        outcome=record.outcome.value,
        label_time=record.label_time,
        policy_revision=record.policy_revision,
    )


def end_round(
    connection: Connection, loop: str, record: RoundRecord, outcome: RoundOutcome, policy_revision: int, now: datetime
) -> Round:
    """Ends the round and opens the next; returns the ended one. Pending commands belong to the ended round and are deleted."""
    queries.delete_pending_of_loop(connection, loop=loop)
    ended = replace(with_updates(record, end_time=now), outcome=outcome, policy_revision=policy_revision)
    put_round(connection, loop, ended)
    put_round(connection, loop, _new_round(record.number + 1, now))
    return ended.round


def put_pending(connection: Connection, loop: str, command: Command, request: Message, record: RoundRecord) -> None:
    """Stores a command before it is executed."""
    queries.put_pending(
        connection,
        loop=loop,
        request_id=command.request_id,
        action=command.action,
        reason=command.reason,
        resource=command.resource,
        request_type=request.DESCRIPTOR.full_name,
        request=request.SerializeToString(),
        round=record.round.SerializeToString(),
        label_time=record.label_time,
    )


def delete_pending(connection: Connection, loop: str, command: Command) -> None:
    """Deletes a pending command whose outcome is known."""
    queries.delete_pending(connection, loop=loop, request_id=command.request_id)


def insert_decision(
    connection: Connection, loop: str, command: Command, round_number: int, now: datetime
) -> Decision | None:
    """Records a decision; returns None if it was recorded before."""
    row = {
        "request_id": command.request_id,
        "action": command.action,
        "reason": command.reason,
        "resource": command.resource,
        "round": round_number,
    }
    inserted = queries.insert_decision(connection, loop=loop, now=now, **row)
    return _decision({**row, "decide_time": now}) if inserted else None


def _new_round(number: int, now: datetime) -> RoundRecord:
    return with_updates(RoundRecord(Round(number=number)), start_time=now)


def _record(row: Any) -> RoundRecord:
    return RoundRecord(
        round=Round.FromString(bytes(row["round"])),
        outcome=RoundOutcome(row["outcome"]),
        label_time=row["label_time"],
        policy_revision=row["policy_revision"],
    )


def _pending(row: Any, current: RoundRecord) -> tuple[Command, RoundRecord] | None:
    if row is None:
        return None
    request = request_of(row["request_type"], bytes(row["request"]))
    command = Command(row["request_id"], row["action"], row["reason"], row["resource"], request)
    return command, replace(current, round=Round.FromString(bytes(row["round"])), label_time=row["label_time"])


def _with_rounds(connection: Connection, rows: Sequence[Any]) -> list[Loop]:
    loops = {row["name"]: _loop(row) for row in rows}
    for round_row in queries.list_newest_rounds(connection, loops=list(loops), limit=ROUNDS_SHOWN_MAX):
        loops[round_row["loop"]].status.rounds.append(Round.FromString(bytes(round_row["round"])))
    return list(loops.values())


def _loop(row: Any) -> Loop:
    loop = Loop(
        name=row["name"],
        display_name=row["display_name"],
        policy=LoopPolicy.FromString(bytes(row["policy"])),
        paused=row["paused"],
        status=LoopStatus.FromString(bytes(row["status"])),
    )
    set_times(loop, row, "create_time", "update_time")
    return loop


def _decision(row: Any) -> Decision:
    decision = Decision(
        request_id=row["request_id"],
        action=row["action"],
        reason=row["reason"],
        resource=row["resource"],
        round=row["round"],
    )
    set_times(decision, row, "decide_time")
    return decision
