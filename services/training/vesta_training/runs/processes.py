"""Distributed runs: several processes of a run, started by torchrun in one or more pods.

The first process (rank 0) does everything that a single process does, and calls the others for fine-tuning only. During fine-tuning, the
processes form a process group of torch.distributed. Before and after, only the first process computes features, metrics and the model
file, and the others wait for its next command, which it writes to the TCPStore of the first pod's torchrun. A crashed process is detected
immediately, because its connections are closed; a process on a lost machine is detected after `heartbeat_timeout_seconds`.
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
"""Commands of the first process. Any other command is the number of the fine-tuning that the other processes join."""
HEARTBEAT_SECONDS = 2.0
_COMMAND, _HEARTBEAT, _ERROR = "vesta/command", "vesta/heartbeat", "vesta/error"

log = structlog.get_logger()


class ProcessLostError(Unavailable):
    """Another process of the run has crashed or does not respond."""

    default_reason = "TRAINING_PROCESS_DIED"


class FirstProcess:
    """The first process (rank 0): it calls the other processes, and ends them when the run is finished.

    Raises:
        ProcessLostError: the TCPStore does not respond.
    """

    def __init__(self, torchrun: TorchrunSettings, timeout: timedelta) -> None:
        self._torchrun = torchrun
        self._timeout = timeout
        self._store = _store(torchrun, timeout)
        self._group_count = 0
        self._closing = threading.Event()
        self._send(IDLE)
        threading.Thread(
            target=self._send_heartbeats, args=(_store(torchrun, timeout),), daemon=True, name="heartbeat"
        ).start()

    @contextmanager
    def process_group(self, inputs: Any) -> Iterator[Group]:
        """Sends the inputs to the other processes. A permanent error of another process is raised here."""
        self._group_count += 1
        self._send(self._group_count)
        try:
            with process_group(self._torchrun, self._group_count, self._timeout) as group:
                group.broadcast(lambda: inputs)
                yield group
        except ProcessLostError as lost:
            error = self._find_error()
            if error is not None:
                raise error from lost
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

    def _find_error(self) -> VestaError | None:
        with _converting_errors():
            if not self._store.check([_ERROR]):
                return None
            return error_from_json(json.loads(self._store.get(_ERROR)))

    def _send_heartbeats(self, store: Store) -> None:
        """Sends heartbeats until the run is finished."""
        count = 0
        while not self._closing.is_set():
            count += 1
            store.set(_HEARTBEAT, str(count))
            self._closing.wait(HEARTBEAT_SECONDS)


def run_other_rank(torchrun: TorchrunSettings, timeout: timedelta, tune: Callable[[Group, Any], None]) -> None:
    """Main loop of all other processes: fine-tunes when the first process calls, until the run is finished.

    Args:
        tune: called with the group and the inputs.

    Raises:
        ProcessLostError: the first process is lost.
        Exception: raised by `tune`. Permanent errors are reported to the first process before.
    """
    store = _store(torchrun, timeout)
    done = 0
    while True:
        command = _next_command(store, done, timeout)
        if command == ENDED:
            return
        done = command
        try:
            with process_group(torchrun, command, timeout) as group:
                _tune(store, tune, group)
        except ProcessLostError as lost:
            log.warning("process_lost", error=str(lost))  # the first process decides whether the run continues
        except Exception:
            # The Job fails when this process exits. Wait until the first process has stored the reason.
            with suppress(ProcessLostError):
                _next_command(store, sys.maxsize, timeout)
            raise


def _tune(store: Store, tune: Callable[[Group, Any], None], group: Group) -> None:
    """Fine-tunes. Reports a permanent error before leaving the group, so that the first process finds it when the group breaks."""
    try:
        tune(group, group.broadcast(lambda: None))
    except Exception as error:
        if not is_transient(error):
            with _converting_errors():
                store.set(_ERROR, json.dumps(error_to_json(error)))
        raise


def _next_command(store: Store, done: int, timeout: timedelta) -> int:
    """Waits for a fine-tuning after number `done`, or for the end of the run."""
    heartbeat, last_change = b"", time.monotonic()
    pause = threading.Event()
    while True:
        with _converting_errors():
            command, now = int(store.get(_COMMAND)), store.get(_HEARTBEAT)
        if command == ENDED or command > done:
            return command
        if now != heartbeat:
            heartbeat, last_change = now, time.monotonic()
        if time.monotonic() - last_change > timeout.total_seconds():
            raise ProcessLostError(
                f"the first process of the run sent no heartbeat for {timeout.total_seconds():.0f} s"
            )
        pause.wait(HEARTBEAT_SECONDS / 2)


class _TorchGroup:
    """The process group of torch.distributed."""

    def __init__(self, torchrun: TorchrunSettings) -> None:
        self.rank, self.size = torchrun.rank, torchrun.world_size

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _converting_errors():
            distributed.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))

    def broadcast(self, make: Callable[[], T]) -> T:
        objects: list[Any] = [make() if self.rank == 0 else None]
        with _converting_errors():
            distributed.broadcast_object_list(objects, src=0)
        value: T = objects[0]
        return value


@contextmanager
def process_group(torchrun: TorchrunSettings, number: int, timeout: timedelta) -> Iterator[Group]:
    """Joins the process group of a fine-tuning. When a process leaves the group, ProcessLostError is raised in the others."""
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(torchrun.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    with _converting_errors():
        distributed.init_process_group(
            backend,
            store=PrefixStore(f"vesta/finetuning-{number}", _store(torchrun, timeout)),
            rank=torchrun.rank,
            world_size=torchrun.world_size,
            timeout=timeout,
        )
    try:
        yield _TorchGroup(torchrun)
    finally:
        distributed.destroy_process_group()


def _store(torchrun: TorchrunSettings, timeout: timedelta) -> TCPStore:
    """Opens a separate connection, because calls on the same connection are serialised."""
    with _converting_errors():
        return TCPStore(
            torchrun.master_addr, torchrun.master_port, is_master=False, wait_for_workers=False, timeout=timeout
        )


@contextmanager
def _converting_errors() -> Iterator[None]:
    """Converts RuntimeError and its subclasses, which torch.distributed raises for lost processes, to ProcessLostError."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(f"another process of the run is lost: {str(error).splitlines()[0]}") from error
