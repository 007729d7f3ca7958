"""The health of a server, by name: told when asked, and to those who watch it whenever it changes.

The servicer that comes with `grpcio-health-checking` sends while it holds its lock, which the end of another watch waits for in the one
thread that lets sending go on: with watchers, its server may stop for ever. Here one thread sends, and holds nothing meanwhile.
"""

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Status = health_pb2.HealthCheckResponse
Send = Callable[[Any], None]
PROBLEMS_KEY = "vesta-problems-bin"
"""Trailing metadata of a health check without a name: a JSON list of sentences that say why it is not SERVING."""
READY = "ready"
"""The name for probes that show no metadata: a check of it fails with the problems as its message, so that `kubectl describe` has them."""


def problems_metadata(problems: Sequence[str]) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata with these problems."""
    return ((PROBLEMS_KEY, json.dumps(list(problems)).encode()),) if problems else ()


def problems_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> list[str]:
    """The problems in the trailing metadata of a health check."""
    return [str(problem) for key, value in metadata or () if key == PROBLEMS_KEY for problem in json.loads(value)]


@dataclass(eq=False)
class _Watcher:
    name: str
    send: Send
    told: int = -1  # no status yet


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # it has no types
    """Statuses by name. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: dict[str, int] = {}
        self._watchers: set[_Watcher] = set()
        self._is_draining = False
        self._problems: tuple[str, ...] = ()
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="health")

    def set(self, name: str, *, serving: bool) -> None:
        """Sets a status; ignored once it drains."""
        with self._lock:
            if not self._is_draining:
                self._statuses[name] = Status.SERVING if serving else Status.NOT_SERVING
        self._tell_all()

    def tell_problems(self, problems: Sequence[str]) -> None:
        """Sets what checks without a name get along with the status: sentences for operators, in the trailing metadata."""
        self._problems = tuple(problems)

    def drain(self) -> None:
        """Sets every status to NOT_SERVING for good."""
        with self._lock:
            self._is_draining = True
            self._statuses = dict.fromkeys(self._statuses, Status.NOT_SERVING)
        self._tell_all()

    def close(self) -> None:
        """Tells nobody anything more."""
        self._sender.shutdown(wait=False)

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the contract's name
        """The status of a name; NOT_FOUND where there is no such name, FAILED_PRECONDITION where `ready` is not serving."""
        with self._lock:
            status = self._statuses.get(request.service)
        if status is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no health of {request.service!r} here")
        if not request.service:
            context.set_trailing_metadata(problems_metadata(self._problems))
        if request.service == READY and status != Status.SERVING:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "; and ".join(self._problems) or "it starts or stops")
        return Status(status=status)

    def Watch(self, request: Any, context: grpc.ServicerContext, send_response_callback: Send) -> None:  # noqa: N802
        """Tells the status of a name now and whenever it changes; SERVICE_UNKNOWN while there is no such name."""
        watcher = _Watcher(request.service, send_response_callback)
        with self._lock:
            self._watchers.add(watcher)
        if not context.add_callback(lambda: self._forget(watcher)):
            self._forget(watcher)
        self._submit(watcher)

    # gRPC looks for this attribute: the call stays open when the method returns, and holds no thread.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]

    def _forget(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def _tell_all(self) -> None:
        with self._lock:
            behind = [watcher for watcher in self._watchers if watcher.told != self._statuses.get(watcher.name)]
        for watcher in behind:
            self._submit(watcher)

    def _submit(self, watcher: _Watcher) -> None:
        with suppress(RuntimeError):  # it is closed
            self._sender.submit(self._tell, watcher)

    def _tell(self, watcher: _Watcher) -> None:
        """Runs in the sender's thread alone."""
        with self._lock:
            status = self._statuses.get(watcher.name, Status.SERVICE_UNKNOWN)
            if watcher not in self._watchers or status == watcher.told:
                return
            watcher.told = status
        watcher.send(Status(status=status))
