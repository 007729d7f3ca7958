"""Distributed runs: several processes of a run, started by torchrun in one or more pods.

The first process (rank 0) does everything that a single process does, and calls the others for fine-tuning only. During fine-tuning, the
processes form a process group of torch.distributed. Before and after, only the first process computes features, metrics and the model
file, and the others wait for its next command, which it writes to the TCPStore of the first pod's torchrun. A crashed process is detected
immediately, because its connections are closed; a process on a lost machine is detected after `silence_seconds`.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import structlog
import torch
from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from vesta_common.errors import Unavailable, VestaError, is_transient

from vesta_training.runs.exchange import error_from_json, error_to_json
from vesta_training.runs.trainer_settings import TorchrunSettings
from vesta_training.tasks.group import Group

T = TypeVar("T")
IDLE, ENDED = 0, -1
"""Commands of the first process. Any other command is the number of a lesson, which calls the other processes to fine-tune."""
BEAT_SECONDS = 2.0
_COMMAND, _BEAT, _REFUSAL = "vesta/word", "vesta/beat", "vesta/refusal"

log = structlog.get_logger()


class ProcessLostError(Unavailable):
    """Another process of the run has crashed or does not respond."""

    default_reason = "TRAINING_PROCESS_DIED"


class FirstProcess:
    """The first process (rank 0): it calls the other processes, and ends them when the run is finished.

    Raises:
        ProcessLostError: the TCPStore does not respond.
    """

    def __init__(self, place: TorchrunSettings, silence: timedelta) -> None:
        self._place = place
        self._silence = silence
        self._store = _store(place, silence)
        self._lessons = 0
        self._closing = threading.Event()
        self._send(IDLE)
        threading.Thread(target=self._beat, args=(_store(place, silence),), daemon=True, name="beat").start()

    @contextmanager
    def called(self, lesson: Any) -> Iterator[Group]:
        """Sends the lesson to the other processes. A permanent error of another process is raised here."""
        self._lessons += 1
        self._send(self._lessons)
        try:
            with joined(self._place, self._lessons, self._silence) as group:
                group.first(lambda: lesson)
                yield group
        except ProcessLostError as lost:
            refusal = self._find_refusal()
            if refusal is not None:
                raise refusal from lost
            raise
        finally:
            self._send(IDLE)

    def end(self) -> None:
        """Ends the other processes, after the result is stored."""
        self._send(ENDED)
        self._closing.set()

    def _send(self, command: int) -> None:
        with _converting_errors():
            self._store.set(_COMMAND, str(command))

    def _find_refusal(self) -> VestaError | None:
        with _converting_errors():
            if not self._store.check([_REFUSAL]):
                return None
            return error_from_json(json.loads(self._store.get(_REFUSAL)))

    def _beat(self, store: Store) -> None:
        """Sends heartbeats until the run is finished."""
        count = 0
        while not self._closing.is_set():
            count += 1
            store.set(_BEAT, str(count))
            self._closing.wait(BEAT_SECONDS)


def follow(place: TorchrunSettings, silence: timedelta, tune: Callable[[Group, Any], None]) -> None:
    """Main loop of all other processes: fine-tunes when the first process calls, until the run is finished.

    Args:
        tune: called with the group and the lesson.

    Raises:
        ProcessLostError: the first process is lost.
        Exception: raised by `tune`. Permanent errors are reported to the first process before.
    """
    store = _store(place, silence)
    done = 0
    while True:
        command = _next_command(store, done, silence)
        if command == ENDED:
            return
        done = command
        try:
            with joined(place, command, silence) as group:
                _tune(store, tune, group)
        except ProcessLostError as lost:
            log.warning("process_lost", error=str(lost))  # the first process decides whether the run continues
        except Exception:
            # The Job fails when this process exits. Wait until the first process has stored the reason.
            with suppress(ProcessLostError):
                _next_command(store, sys.maxsize, silence)
            raise


def _tune(store: Store, tune: Callable[[Group, Any], None], group: Group) -> None:
    """Fine-tunes. Reports a permanent error before leaving the group, so that the first process finds it when the group breaks."""
    try:
        tune(group, group.first(lambda: None))
    except Exception as error:
        if not is_transient(error):
            with _converting_errors():
                store.set(_REFUSAL, json.dumps(error_to_json(error)))
        raise


def _next_command(store: Store, done: int, silence: timedelta) -> int:
    """Waits for a lesson after `done`, or for the end of the run."""
    beat, heard = b"", time.monotonic()
    pause = threading.Event()
    while True:
        with _converting_errors():
            command, now = int(store.get(_COMMAND)), store.get(_BEAT)
        if command == ENDED or command > done:
            return command
        if now != beat:
            beat, heard = now, time.monotonic()
        if time.monotonic() - heard > silence.total_seconds():
            raise ProcessLostError(
                f"the first process of the run sent no heartbeat for {silence.total_seconds():.0f} s"
            )
        pause.wait(BEAT_SECONDS / 2)


class _TorchGroup:
    """The process group of torch.distributed."""

    def __init__(self, place: TorchrunSettings) -> None:
        self.rank, self.size = place.rank, place.world_size

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        flat = torch.cat([one.reshape(-1) for one in tensors])
        with _converting_errors():
            distributed.all_reduce(flat)
        for one, total in zip(tensors, torch.split(flat, [one.numel() for one in tensors]), strict=True):
            one.copy_(total.view(one.shape))

    def first(self, make: Callable[[], T]) -> T:
        made: list[Any] = [make() if self.rank == 0 else None]
        with _converting_errors():
            distributed.broadcast_object_list(made, src=0)
        value: T = made[0]
        return value


@contextmanager
def joined(place: TorchrunSettings, lesson: int, silence: timedelta) -> Iterator[Group]:
    """Joins the process group of a lesson. When a process leaves the group, ProcessLostError is raised in the others."""
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    with _converting_errors():
        distributed.init_process_group(
            backend,
            store=PrefixStore(f"vesta/lesson-{lesson}", _store(place, silence)),
            rank=place.rank,
            world_size=place.world_size,
            timeout=silence,
        )
    try:
        yield _TorchGroup(place)
    finally:
        distributed.destroy_process_group()


def _store(place: TorchrunSettings, silence: timedelta) -> TCPStore:
    """Opens a separate connection, because calls on the same connection are serialised."""
    with _converting_errors():
        return TCPStore(place.master_addr, place.master_port, is_master=False, wait_for_workers=False, timeout=silence)


@contextmanager
def _converting_errors() -> Iterator[None]:
    """Converts RuntimeError and its subclasses, which torch.distributed raises for lost processes, to ProcessLostError."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(f"another process of the run is lost: {str(error).splitlines()[0]}") from error
