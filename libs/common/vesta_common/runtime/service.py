"""Runs a service process: settings, logging, app, server, background components.

Startup: settings, logging and tracing, `build` (which waits for the engines), metrics, the components in order, then the server. Health is
SERVING while all components are healthy.

Shutdown, on SIGTERM or SIGINT: health becomes NOT_SERVING, and calls are still accepted for `drain_ms`, until clients use other replicas.
Then, within ten seconds, new calls are rejected, running calls finish, the components stop in reverse order and release their leases, and
pools and channels close. A second signal ends the drain period. During `build` there is nothing to finish, so a signal exits immediately.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar, runtime_checkable

import structlog
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from vesta_common import log as logs
from vesta_common.identity import CredentialsError, Identity
from vesta_common.metrics import problems_gauge, serve_metrics
from vesta_common.rpc.admission import AdmissionMetrics
from vesta_common.rpc.server import THREADS, Server
from vesta_common.rpc.trace_export import start_tracing_of
from vesta_common.runtime.engine_watch import EngineCheck, EngineWatch
from vesta_common.runtime.self_checks import self_checks_of
from vesta_common.service_thread import NO_PAUSE, ServiceThread
from vesta_common.settings import EXIT_WRONG_SETTINGS, EngineSettings, ServiceSettings, load_settings

S = TypeVar("S", bound=ServiceSettings)

HEALTH_INTERVAL = timedelta(milliseconds=250)
HEALTHY_INTERVAL = timedelta(seconds=1)
"""Interval of looking at the components of a service without problems."""
SERVER_STOP_TIMEOUT = timedelta(seconds=3)
STOP_TIMEOUT = timedelta(seconds=8)
EXIT_NO_SUCH_COMMAND = 2

log = structlog.get_logger()


class Component(Protocol):
    """Background work of a service, such as a relay, a consumer or a worker."""

    def start(self) -> None:
        """Starts the component without blocking."""
        ...

    def stop(self, timeout: timedelta) -> None:
        """Finishes or releases the current work within the timeout."""
        ...

    def healthy(self) -> bool:
        """Returns False if the component cannot do its work."""
        ...


@runtime_checkable
class HasMetrics(Protocol):
    """A component with its own metrics."""

    def measure(self, service: str, registry: CollectorRegistry) -> None:
        """Registers the metrics. Called before `start`."""
        ...


@runtime_checkable
class HasProblems(Protocol):
    """A component that detects failures that no other check detects."""

    def problems(self) -> list[str]:
        """Returns the current problems, each as a sentence with a suggested fix."""
        ...


def new_registry() -> CollectorRegistry:
    """Creates a registry with process metrics, and without the global metrics of libraries."""
    registry = CollectorRegistry()
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        registry.register(collector)
    return registry


@dataclass
class App:
    """The parts of a service.

    Attributes:
        servicers: the gRPC services.
        components: background components in start order. They stop in reverse order.
        closing: functions called last, to close pools and channels.
        registry: the metrics registry. Create it with `new_registry` to share it with components.
        rpc_threads: maximum number of concurrent RPCs.
        admission_metrics: metrics of the service's queues, if it has more queues than the one of the RPC threads.
        engines: settings of the engines whose outage makes the service unready; None to monitor no engines.
        has_objects: whether the service uses the object store.
        checks: checks of further dependencies by name; see `EngineWatch`.
        outlined: methods whose requests are read without copying their files; see `vesta_common.rpc.outline`.
    """

    servicers: Sequence[Any]
    components: Sequence[Component] = ()
    closing: Sequence[Callable[[], None]] = field(default_factory=tuple)
    registry: CollectorRegistry = field(default_factory=new_registry)
    rpc_threads: int = THREADS
    admission_metrics: AdmissionMetrics | None = None
    engines: EngineSettings | None = None
    has_objects: bool = False
    checks: Mapping[str, EngineCheck] = field(default_factory=dict)
    outlined: Collection[str] = ()


class BackgroundTask(ServiceThread):
    """Calls `step` repeatedly in its own thread.

    Args:
        name: the name of the thread, also in logs.
        step: does one unit of work; returns whether more work may be available.
        idle: pause if there is no work; `wake` ends it early.
        on_stop: called first when the task is stopped, so that a long step can end early.
    """

    def __init__(
        self, name: str, step: Callable[[], bool], idle: timedelta, on_stop: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name)
        self._work = step
        self._idle = idle
        self._on_stop = on_stop

    def stop(self, timeout: timedelta) -> None:
        """Stops after the current step."""
        self._stopping.set()
        self._on_stop()
        super().stop(timeout)

    def _step(self) -> timedelta:
        return NO_PAUSE if self._work() else self._idle


def run(
    service: str,
    settings_class: type[S],
    build: Callable[[S], App],
    commands: Mapping[str, Callable[[S], int]] | None = None,
) -> None:
    """Runs a service process until it is stopped. `python -m vesta_<service> COMMAND` runs one of `commands` instead.

    Args:
        service: the service's name, such as `annotation`.
        build: the composition root; may wait for engines.
        commands: operator commands, such as `replay-dead-letters`; each returns an exit status.
    """
    settings = load_settings(settings_class)
    logs.start_logging(service, settings.log_level, settings.log_format)
    start_tracing_of(service, settings)
    arguments = sys.argv[1:]
    if arguments:
        known = commands or {}
        if arguments[0] not in known:
            sys.stderr.write(f"unknown command {arguments[0]!r}; commands: {', '.join(sorted(known)) or 'none'}\n")
            sys.exit(EXIT_NO_SUCH_COMMAND)
        sys.exit(known[arguments[0]](settings))
    _serve(service, settings, build)


def _serve(service: str, settings: S, build: Callable[[S], App]) -> None:
    _on_signals(lambda: sys.exit(0))
    try:
        identity = Identity.of(settings, service)
    except CredentialsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_WRONG_SETTINGS)
    app = build(settings)
    stopping = threading.Event()
    _on_signals(stopping.set)
    server = Server(
        identity,
        settings.listen_address,
        app.servicers,
        app.registry,
        queue_wait_max=timedelta(milliseconds=settings.queue_wait_max_ms),
        threads=app.rpc_threads,
        admission_metrics=app.admission_metrics,
        health_address=settings.health_address,
        outlined=app.outlined,
    )
    problem_count = problems_gauge(service, app.registry)
    metrics_address = serve_metrics(settings.metrics_address, app.registry)
    for component in app.components:
        if isinstance(component, HasMetrics):
            component.measure(service, app.registry)
        component.start()
    watch = _watch(service, app, identity)
    watch.start()
    server.start()
    log.info("service_started", address=server.address, metrics=metrics_address)
    unhealthy_before: list[str] = []
    while not stopping.is_set():
        unhealthy = [type(component).__name__ for component in app.components if not component.healthy()]
        problems = [*_stopped_problems(unhealthy), *watch.problems(), *_component_problems(app.components)]
        server.set_healthy(healthy=not unhealthy, problems=problems)
        problem_count.set(len(problems))
        if unhealthy != unhealthy_before:
            log.warning("health_changed", unhealthy=unhealthy)
            unhealthy_before = unhealthy
        stopping.wait((HEALTH_INTERVAL if unhealthy or problems else HEALTHY_INTERVAL).total_seconds())
    watch.stop()
    second_signal = threading.Event()
    _on_signals(second_signal.set)
    server.drain()
    log.info("service_draining", milliseconds=settings.drain_ms)
    second_signal.wait(settings.drain_ms / 1000)
    stop_app(app, server)
    log.info("service_stopped")


def _watch(service: str, app: App, identity: Identity) -> EngineWatch:
    if app.engines is None:
        return EngineWatch({})
    from vesta_common.runtime.engine_checks import (
        engine_checks_of,  # the clients of the engines are loaded only by services that use engines
    )

    topics = {topic for component in app.components for topic in getattr(component, "topics", ())}
    return EngineWatch(
        {
            **engine_checks_of(service, app.engines, topics, has_objects=app.has_objects),
            **self_checks_of(app.engines, lambda: identity.credentials.certificate),
            **app.checks,
        }
    )


def _component_problems(components: Sequence[Component]) -> list[str]:
    return [
        problem for component in components if isinstance(component, HasProblems) for problem in component.problems()
    ]


def _stopped_problems(unhealthy: Sequence[str]) -> list[str]:
    return [f"{name} has stopped; see the log for the cause, and restart the service" for name in unhealthy]


def _on_signals(act: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: act())


def stop_app(app: App, server: Server) -> None:
    """Stops the server and the components and closes resources, within ten seconds. An error in one step does not prevent the others."""
    deadline = time.monotonic() + STOP_TIMEOUT.total_seconds()
    server.stop(SERVER_STOP_TIMEOUT)
    for component in reversed(app.components):
        _quietly(component.stop, _until(deadline))
    for close in app.closing:
        _quietly(close)


def _until(deadline: float) -> timedelta:
    """Returns the remaining time, at least 0.1 s."""
    return timedelta(seconds=max(0.1, deadline - time.monotonic()))


def _quietly(act: Callable[..., None], *arguments: timedelta) -> None:
    try:
        act(*arguments)
    except Exception:
        log.exception("stop_failed")
