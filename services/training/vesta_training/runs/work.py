"""Executes the work of a run: reads the job, trains, and stores progress, checkpoints and the result in the object store."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from vesta_common.errors import VestaError, is_transient
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import TrainingProgress

from vesta_training.errors import TrainingCancelled
from vesta_training.runs.exchange import Exchange
from vesta_training.runs.job import CurveResult, Job, RunResult, finetune_on_other_rank, measure_job, run_job
from vesta_training.tasks.group import NO_OTHER_RANKS, Group, OtherRanks, TuningInput

PROGRESS_SECONDS = 1.0
CHECKPOINT_SECONDS = 60.0  # an upload takes seconds; repeating a shorter epoch after a restart is cheaper

log = structlog.get_logger()


def execute(
    work: str,
    objects: ObjectStore,
    machine: Mapping[str, Any] | None = None,
    *,
    changed: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
    other_ranks: OtherRanks = NO_OTHER_RANKS,
) -> bool:
    """Executes the work, a training or the measurement of a learning curve, and stores the result. Returns whether it succeeded.

    Args:
        machine: fields of the job that depend on the machine: `work_folder`, `threads`.
        changed: called after progress was stored.
        check: called after every step; raises TrainingCancelled to stop. No result is stored then.
        other_ranks: the other processes of a distributed run; see `execute_other_rank`.

    Raises:
        TrainingCancelled: see `check`.
        NotFound: the run was finished or deleted in the meantime.
        Exception: a transient error. No result is stored, and a restart can succeed.
    """
    exchange = Exchange(objects, work)
    job: Job = replace(exchange.get_job(), **(machine or {}))
    try:
        publish, checkpoints = _ProgressPublisher(exchange, changed, check), _Checkpoints(exchange)
        outcome: RunResult | CurveResult = (
            measure_job(job, objects, publish, checkpoints)
            if job.measured_key
            else run_job(job, objects, publish, checkpoints, other_ranks)
        )
    except TrainingCancelled:
        raise
    except Exception as error:
        if is_transient(error):
            raise
        log.warning("training_failed", work=work, error=str(error), exc_info=not isinstance(error, VestaError))
        exchange.fail(error)
        return False
    exchange.succeed(outcome)
    return True


def execute_other_rank(
    work: str, objects: ObjectStore, machine: Mapping[str, Any], inputs: TuningInput, group: Group
) -> None:
    """Executes the fine-tuning as another process than the first one (rank 0). Stores nothing.

    Raises:
        NotFound: the run was finished or deleted in the meantime.
        Exception: see `finetune_on_other_rank`.
    """
    job: Job = replace(Exchange(objects, work).get_job(), **machine)
    finetune_on_other_rank(job, objects, inputs, group)


class _ProgressPublisher:
    """Stores progress at most once per second, and at the start of each phase."""

    def __init__(self, exchange: Exchange, changed: Callable[[], None], check: Callable[[], None]) -> None:
        self._exchange = exchange
        self._changed = changed
        self._check = check
        self._last_published, self._phase = 0.0, ""

    def __call__(self, progress: TrainingProgress) -> None:
        self._check()
        now = time.monotonic()
        if progress.phase != self._phase or now - self._last_published >= PROGRESS_SECONDS:
            self._last_published, self._phase = now, progress.phase
            self._exchange.put_progress(progress)
            self._changed()


class _Checkpoints:
    """Stores each checkpoint at most once per minute. Can be used from several threads."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._began = time.monotonic()
        self._last_stored: dict[Path, float] = {}

    def fetch(self, path: Path) -> None:
        if not path.exists():
            self._exchange.fetch_checkpoint(path)

    def store(self, path: Path) -> None:
        if time.monotonic() - self._last_stored.get(path, self._began) >= CHECKPOINT_SECONDS:
            self._exchange.put_checkpoint(path)
            self._last_stored[path] = time.monotonic()
