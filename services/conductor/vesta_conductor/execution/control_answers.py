"""Reads the answers of the control arm. Accepted tasks never change: each is read and compared with its prediction once."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final

from vesta_contracts.annotation.v1 import Campaign, Task

from vesta_conductor.reconciliation.control_arm import ControlAnswer
from vesta_conductor.task_types import LoopTask

CAMPAIGNS_MAX: Final = 1000
"""The number of campaigns whose answers are kept in memory."""
CLOCK_SKEW_MAX: Final = timedelta(seconds=60)
"""Clock skew between two services."""

ListTasks = Callable[[str], Iterable[Task]]
"""Lists the tasks of the campaign that match a filter."""


@dataclass(frozen=True)
class _Read:
    """What was read of a campaign.

    Attributes:
        until: the time when it was read; None if it was not.
        answers: with the creation times of their tasks, by task.
    """

    until: datetime | None = None
    answers: dict[str, tuple[datetime, ControlAnswer]] = field(default_factory=dict)


class ControlAnswers:
    """The compared answers of the campaigns that were read last, in memory. A new process reads them again.

    Thread-safe, provided that each campaign is read by one thread at a time.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._campaigns: OrderedDict[tuple[str, int], _Read] = OrderedDict()

    def since(
        self, created: datetime, campaign: Campaign, task_type: LoopTask, now: datetime, list_tasks: ListTasks
    ) -> tuple[ControlAnswer, ...]:
        """Returns the answers to the tasks of a campaign that were created since a time. Lists the tasks that were accepted since the
        last call.
        """
        key = campaign.name, campaign.create_time.ToNanoseconds()  # a campaign that is created again has other tasks
        with self._lock:
            known = self._campaigns.get(key, _Read())
        accepted = created if known.until is None else max(created, known.until - CLOCK_SKEW_MAX)
        filter_text = (
            f'state = ACCEPTED AND control = true AND create_time >= "{created.isoformat()}" AND '
            f'update_time >= "{accepted.isoformat()}"'
        )
        answers = {name: found for name, found in known.answers.items() if found[0] >= created}
        for task in list_tasks(filter_text):
            if answer := ControlAnswer.find(task, task_type):
                answers[task.name] = task.create_time.ToDatetime(UTC), answer
        with self._lock:
            self._campaigns[key] = _Read(now, answers)
            self._campaigns.move_to_end(key)
            if len(self._campaigns) > CAMPAIGNS_MAX:
                self._campaigns.popitem(last=False)
        return tuple(answer for _, answer in answers.values())
