"""Runs a service: settings, logs, its app, its server, its background work; starts in order, stops gracefully in reverse."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import structlog
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from vesta_common import log as logs
from vesta_common import trace
from vesta_common.errors import is_transient
from vesta_common.metrics import serve_metrics
from vesta_common.server import Server
from vesta_common.settings import ServiceSettings, load_settings

S = TypeVar("S", bound=ServiceSettings)

HEALTH_INTERVAL = timedelta(seconds=1)
STOP_TIMEOUT = timedelta(seconds=8)
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 10.0

log = structlog.get_logger()


class Component(Protocol):
    """Background work of a service: a relay, a consumer, a worker."""

    def start(self) -> None:
        """Begins; returns at once."""
        ...

    def stop(self, timeout: timedelta) -> None:
        """Finishes or gives back what it has in hand, within the timeout."""
        ...

    def healthy(self) -> bool:
        """False where it cannot do its work."""
        ...


def new_registry() -> CollectorRegistry:
    """A registry with the process's own figures; what libraries count globally stays out."""
    registry = CollectorRegistry()
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        registry.register(collector)
    return registry


@dataclass
class App:
    """What a service is made of.

    Attributes:
        servicers: its gRPC services.
        components: its background work, in the order in which it starts; it stops in reverse.
        closing: what is to be closed last, pools and channels.
        registry: holds its metrics; `new_registry` makes one where components are to count on it too.
    """

    servicers: Sequence[Any]
    components: Sequence[Component] = ()
    closing: Sequence[Callable[[], None]] = field(default_factory=tuple)
    registry: CollectorRegistry = field(default_factory=new_registry)


class Loop:
    """Calls `step` again and again in a thread of its own.

    Args:
        name: names the thread and the log lines.
        step: does one piece of work; answers whether there may be more just now.
        idle: how long to rest when there is none; `wake` cuts it short.
        on_stop: told first when the loop is to stop, so that a long step can end early.
    """

    def __init__(
        self, name: str, step: Callable[[], bool], idle: timedelta, on_stop: Callable[[], None] = lambda: None
    ) -> None:
        self._name = name
        self._step = step
        self._idle = idle
        self._on_stop = on_stop
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def wake(self) -> None:
        """Ends a rest."""
        self._wake.set()

    def stop(self, timeout: timedelta) -> None:
        """Lets the step in hand finish."""
        self._stopping.set()
        self._wake.set()
        self._on_stop()
        if self._thread.ident:
            self._thread.join(timeout.total_seconds())

    def healthy(self) -> bool:
        """True while the thread lives."""
        return self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                more = self._step()
                failures = 0
            except Exception as error:
                failures += 1
                more = False
                if is_transient(error):
                    log.warning("work_postponed", loop=self._name, error=str(error), failures=failures)
                else:
                    log.exception("work_failed", loop=self._name, failures=failures)
            if not more:
                rest = (
                    min(BACKOFF_FIRST_SECONDS * 2 ** min(failures, 16), BACKOFF_MAX_SECONDS)
                    if failures
                    else self._idle.total_seconds()
                )
                self._wake.wait(rest)
                self._wake.clear()


def run(
    service: str,
    settings_class: type[S],
    build: Callable[[S], App],
    commands: Mapping[str, Callable[[S], int]] | None = None,
) -> None:
    """The whole life of a service process; `python -m vesta_<service> COMMAND` runs one of `commands` instead.

    Args:
        service: the service's word, such as `annotation`.
        build: the composition root; it may wait for engines.
        commands: what an operator can run, such as `replay-dead-letters`; each answers an exit status.
    """
    settings = load_settings(settings_class)
    logs.start_logging(service, settings.log_level, settings.log_format)
    trace.start_tracing(service)
    arguments = sys.argv[1:]
    if arguments:
        known = commands or {}
        if arguments[0] not in known:
            sys.stderr.write(f"{arguments[0]!r} is no command; what works: {', '.join(sorted(known)) or 'none'}\n")
            sys.exit(2)
        sys.exit(known[arguments[0]](settings))
    _serve(service, settings, build)


def _serve(service: str, settings: S, build: Callable[[S], App]) -> None:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    app = build(settings)
    server = Server(service, settings.listen_address, app.servicers, app.registry)
    metrics_address = serve_metrics(settings.metrics_address, app.registry)
    for component in app.components:
        component.start()
    server.start()
    log.info("service_started", address=server.address, metrics=metrics_address)
    while not stopping.wait(HEALTH_INTERVAL.total_seconds()):
        server.set_healthy(healthy=all(component.healthy() for component in app.components))
    stop_app(app, server)
    log.info("service_stopped")


def stop_app(app: App, server: Server) -> None:
    """Stops answering, then working, then closes what was open; within ten seconds."""
    deadline = time.monotonic() + STOP_TIMEOUT.total_seconds()
    server.stop(timedelta(seconds=3))
    for component in reversed(app.components):
        component.stop(timedelta(seconds=max(0.1, deadline - time.monotonic())))
    for close in app.closing:
        close()
