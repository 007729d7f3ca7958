"""The gRPC health service: status by name, for checks and for watches.

The servicer of `grpcio-health-checking` sends to watchers while it holds its lock. The end of another watch waits for that lock in the
thread that completes sends, which can deadlock the server. This servicer sends from one thread, without holding a lock.
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

HealthStatus = health_pb2.HealthCheckResponse
Send = Callable[[Any], None]
PROBLEMS_KEY = "vesta-problems-bin"
"""Trailing metadata of a health check without a name: a JSON list of messages that explain why the status is not SERVING."""
READY = "ready"
"""Service name for probes that do not show metadata. A failed check has the problems as its message, which `kubectl describe` shows."""


def problems_metadata(problems: Sequence[str]) -> tuple[tuple[str, bytes], ...]:
    """Returns trailing metadata that contains the problems."""
    return ((PROBLEMS_KEY, json.dumps(list(problems)).encode()),) if problems else ()


def problems_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> list[str]:
    """Returns the problems in the trailing metadata of a health check."""
    return [str(problem) for key, value in metadata or () if key == PROBLEMS_KEY for problem in json.loads(value)]


@dataclass(eq=False)
class _Watcher:
    name: str
    send: Send
    sent_status: int = -1  # no status yet


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # the package has no type annotations
    """Health statuses by service name. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: dict[str, int] = {}
        self._watchers: set[_Watcher] = set()
        self._is_draining = False
        self._problems: tuple[str, ...] = ()
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="health")

    def set(self, name: str, *, serving: bool) -> None:
        """Sets a status. Ignored after `drain`."""
        with self._lock:
            if not self._is_draining:
                self._statuses[name] = HealthStatus.SERVING if serving else HealthStatus.NOT_SERVING
        self._notify_all()

    def set_problems(self, problems: Sequence[str]) -> None:
        """Sets the problems that checks without a name return in the trailing metadata."""
        self._problems = tuple(problems)

    def drain(self) -> None:
        """Sets every status to NOT_SERVING permanently."""
        with self._lock:
            self._is_draining = True
            self._statuses = dict.fromkeys(self._statuses, HealthStatus.NOT_SERVING)
        self._notify_all()

    def close(self) -> None:
        """Stops notifying watchers."""
        self._sender.shutdown(wait=False)

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the contract's name
        """Returns the status of a name. NOT_FOUND for unknown names; FAILED_PRECONDITION if `ready` is not serving."""
        with self._lock:
            status = self._statuses.get(request.service)
        if status is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown health service {request.service!r}")
        if not request.service:
            context.set_trailing_metadata(problems_metadata(self._problems))
        if request.service == READY and status != HealthStatus.SERVING:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "; and ".join(self._problems) or "the service is starting or stopping",
            )
        return HealthStatus(status=status)

    def Watch(self, request: Any, context: grpc.ServicerContext, send_response_callback: Send) -> None:  # noqa: N802
        """Streams the status of a name: the current one and every change. SERVICE_UNKNOWN while the name is unknown."""
        watcher = _Watcher(request.service, send_response_callback)
        with self._lock:
            self._watchers.add(watcher)
        if not context.add_callback(lambda: self._remove_watcher(watcher)):
            self._remove_watcher(watcher)
        self._submit(watcher)

    # gRPC reads this attribute: the call stays open after the method returns and occupies no thread.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]

    def _remove_watcher(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def _notify_all(self) -> None:
        with self._lock:
            outdated = [
                watcher for watcher in self._watchers if watcher.sent_status != self._statuses.get(watcher.name)
            ]
        for watcher in outdated:
            self._submit(watcher)

    def _submit(self, watcher: _Watcher) -> None:
        with suppress(RuntimeError):  # the executor is shut down
            self._sender.submit(self._notify, watcher)

    def _notify(self, watcher: _Watcher) -> None:
        """Sends the current status to a watcher. Runs only in the sender thread."""
        with self._lock:
            status = self._statuses.get(watcher.name, HealthStatus.SERVICE_UNKNOWN)
            if watcher not in self._watchers or status == watcher.sent_status:
                return
            watcher.sent_status = status
        watcher.send(HealthStatus(status=status))
