"""The whole platform: starts programs in order, waits until they are healthy, reports their state, and stops them."""

import re
import signal
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from vesta_admin import setup

from vesta_local import identities, services, wheels
from vesta_local.engines import events, external_engines, inference, objects, postgres, retention, storage
from vesta_local.engines.addresses import admin_settings
from vesta_local.home import Home
from vesta_local.processes import memory_bytes
from vesta_local.program import Program
from vesta_local.status import Row, external_rows, row_of
from vesta_local.supervisor import ExitCounter, ProcessState, Supervisor

ENGINES = ("postgres", "objects", "events", "inference", "retention", storage.NAME)
# Services first, then the engines, last the object store, on which the broker and Triton depend.
_STOP_ORDER = ((*services.NAMES, "retention", storage.NAME), ("events", "inference", "postgres"), ("objects",))
HEALTH_DEADLINE = timedelta(seconds=300)
# A program that exits this often during a start is reported immediately.
EXITS_MAX = 3
LOG_TAIL_LINES = 12
_POLL_SECONDS = 0.2
# In supervisord's configuration, % begins a variable, and # or ; after a blank begins a comment. Newlines and trailing blanks are removed.
# A quoted value cannot contain both kinds of quotes.
_UNSUPPORTED = re.compile(r"%|\s[#;]|[\r\n]|\s$|\".*'|'.*\"")

Report = Callable[[str], None]


def _silent(_: str) -> None:
    return


class Platform:
    """The platform in a home.

    Args:
        only: the programs to start, with all their replicas; all programs if empty.
        bound: whether the platform ends with this process, as in tests.

    Raises:
        RuntimeError: `only` contains an unknown program, or supervisord cannot use the home's path.
    """

    def __init__(self, home: Home, only: Sequence[str] = (), *, bound: bool = False) -> None:
        unsupported = _UNSUPPORTED.search(str(home.root))
        if unsupported:
            raise RuntimeError(
                f"the path {str(home.root)!r} has {unsupported.group()!r}, which supervisord does not support; use another folder"
            )
        self.home = home
        self.supervisor = Supervisor(home, bound=bound)
        known = (*ENGINES, *services.NAMES)
        unknown = [name for name in only if name not in known]
        if unknown:
            raise RuntimeError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
        self._chosen = tuple(name for name in known if not only or name in only)

    @property
    def names(self) -> tuple[str, ...]:
        """The programs to start, including replicas."""
        return tuple(
            replica for name in self._chosen if self._is_needed(name) for replica in self.home.replicas_of(name)
        )

    def _is_needed(self, name: str) -> bool:
        """Whether a program runs in this home: not external engines, nor programs that only the home's own engines need.

        The embedded broker always stores its data in the home's own object store, even if the platform uses an external one.
        """
        own = {*ENGINES} - external_engines.of(self.home).external
        if not events.is_apache(self.home):
            own |= {"objects"}
        needs = {"retention": not events.is_apache(self.home), storage.NAME: "objects" in own}
        return needs.get(name, name in own or name not in ENGINES)

    @property
    def programs(self) -> dict[str, Program]:
        """All programs by name, with the current ports."""
        home = self.home
        makers = {
            "postgres": postgres,
            "objects": objects,
            "events": events,
            "retention": retention,
            storage.NAME: storage,
        }
        engines = [maker.program(home) for name, maker in makers.items() if self._is_needed(name)]
        names = home.replicas_of("inference") if self._is_needed("inference") else []
        tritons = [inference.program(home, name) for name in names]
        return {program.name: program for program in (*engines, *tritons, *services.programs(home))}

    def up(self, report: Report = _silent, deadline: timedelta = HEALTH_DEADLINE) -> None:
        """Starts what is not running, and waits until everything is healthy.

        Raises:
            RuntimeError: a package is not installed, or a program has exited three times or is not healthy in time; contains the end
                of its log.
        """
        missing = [name for name in self._chosen if name in services.missing_packages()]
        if missing:
            packages = ", ".join(f"vesta_{name}" for name in missing)
            raise RuntimeError(f"not installed: {packages}; `make setup` installs every service")
        with self.home.lock():
            self._prepare(report)
            self._start_all(time.monotonic() + deadline.total_seconds(), report)

    def _prepare(self, report: Report) -> None:
        running = self.supervisor.is_running()
        if running:
            self.home.choose_missing_ports()
        else:
            self.supervisor.end_orphans()
            self.home.choose_ports()
        if "postgres" in self.names:
            postgres.prepare(self.home)
        if "objects" in self.names:
            objects.prepare(self.home)
        if "events" in self.names:
            events.prepare(self.home)
        if "inference" in self.names:
            inference.prepare(self.home, report)
        identities.prepare(self.home.identities, services.NAMES)
        if "gateway" in self.names:
            wheels.build_missing(report)
        self.home.make_sockets()
        engines = admin_settings(self.home)
        self.home.write_addresses({"events": engines.kafka_bootstrap, "inference": engines.triton_address})
        programs = list(self.programs.values())
        if running:
            self.supervisor.update(programs)
        else:
            self.supervisor.start(programs)

    def _start_all(self, end: float, report: Report) -> None:
        with ThreadPoolExecutor(
            2
        ) as pool:  # the database starts in parallel with the object store and what depends on it
            branches = [
                pool.submit(self._bring_up_postgres, end, report),
                pool.submit(self._bring_up_objects, end, report),
            ]
            for branch in branches:
                branch.result()
        self._bring_up([name for name in self.names if name.partition("-")[0] not in ENGINES], end, report)

    def _bring_up_postgres(self, end: float, report: Report) -> None:
        self._bring_up([name for name in self.names if name == "postgres"], end, report)
        if "postgres" in self._chosen:
            setup.set_up_database(admin_settings(self.home))

    def _bring_up_objects(self, end: float, report: Report) -> None:
        if "objects" in self.names:
            self._bring_up(["objects"], end, report)
        if "objects" in self._chosen:
            setup.set_up_objects(admin_settings(self.home))
        if "objects" in self.names:
            objects.finish(self.home)
        waited = ("events", *self.home.replicas_of("inference"))
        self._bring_up([name for name in waited if name in self.names], end, report)
        if "events" in self._chosen:
            setup.set_up_topics(admin_settings(self.home))
        if "retention" in self.names:
            self._bring_up(["retention"], end, report)
        if storage.NAME in self.names:
            self._bring_up([storage.NAME], end, report)

    def _bring_up(self, names: Sequence[str], end: float, report: Report) -> None:
        for name in names:
            self.supervisor.run(name)
        self._await(names, end, report)

    def down(self) -> bool:
        """Stops everything, including processes that a killed supervisord left behind; returns False if nothing was running."""
        with self.home.lock():
            stopped = (
                self.supervisor.stop(self._stop_order())
                if self.supervisor.is_running()
                else self.supervisor.end_orphans()
            )
            objects.remove_sockets(self.home)
            self.home.remove_sockets()
            return stopped

    def _stop_order(self) -> list[list[str]]:
        """Returns the running programs by stop group. Includes replicas that were started before their number was reduced."""
        running = [state.name for state in self.supervisor.states()]
        return [[name for name in running if name.partition("-")[0] in group] for group in _STOP_ORDER]

    def restart(self, *names: str, gracefully: bool = False) -> None:
        """Kills or gracefully stops programs, and waits until supervisord has restarted them and all are healthy.

        Raises:
            RuntimeError: a program is not healthy in time; contains the end of its log.
        """
        with_signal = signal.SIGTERM if gracefully else signal.SIGKILL
        before = {name: self.supervisor.kill(name, with_signal) for name in names}
        end = time.monotonic() + HEALTH_DEADLINE.total_seconds()
        for name, pid in before.items():
            while self.supervisor.pid(name) in (0, pid) and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
        self._await(names, end, _silent)

    def rows(self) -> list[Row]:
        """Returns the state of every program in start order, then of external engines and the supervisor."""
        programs = self.programs
        if not self.supervisor.is_running():
            return [Row(name, programs[name].address, "down", 0) for name in self.names]
        states = {state.name: state for state in self.supervisor.states()}
        # A supervisord that was started before a program was added does not have it until the next `up`.
        known = [(programs[name], states.get(name, ProcessState(name, "down", 0))) for name in self.names]
        with ThreadPoolExecutor(len(known)) as pool:
            rows = list(pool.map(lambda pair: row_of(*pair), known))
        return [
            *rows,
            *external_rows(self.home, self._chosen),
            Row("supervisor", "", "healthy", memory_bytes(self.supervisor.own_pid(), family=False) / 2**20),
        ]

    def wait_healthy(self, names: Sequence[str] = (), deadline: timedelta = HEALTH_DEADLINE) -> None:
        """Waits until these programs, or all, are healthy.

        Raises:
            RuntimeError: a program has exited three times meanwhile, or is not healthy in time; contains the end of its log.
        """
        self._await(names or self.names, time.monotonic() + deadline.total_seconds(), _silent)

    def _await(self, names: Sequence[str], end: float, report: Report) -> None:
        programs = self.programs
        exits = ExitCounter()
        with ThreadPoolExecutor(len(names) or 1) as pool:  # checks may take seconds; exits are counted meanwhile
            checks = {name: pool.submit(programs[name].is_healthy) for name in names}
            while True:
                exits.observe(self.supervisor.states())
                for name, check in list(checks.items()):
                    if check.done() and check.result():
                        del checks[name]
                        report(f"{name} is healthy")
                    elif check.done():
                        checks[name] = pool.submit(programs[name].is_healthy)
                failures = self._failures(checks, exits, is_late=time.monotonic() > end)
                if failures:
                    raise RuntimeError("\n".join(failures))
                if not checks:
                    return
                time.sleep(_POLL_SECONDS)

    def _failures(self, waiting: Collection[str], exits: ExitCounter, *, is_late: bool) -> list[str]:
        """Returns the errors of programs that are not healthy yet; empty while they may still become healthy."""
        exiting = [
            f"{name} has exited {exits.counts[name]} times while starting; {self._log_tail(name)}"
            for name in waiting
            if exits.counts[name] >= EXITS_MAX
        ]
        late = [f"{name} does not become healthy; {self._log_tail(name)}" for name in waiting] if is_late else []
        return exiting or late

    def _log_tail(self, name: str) -> str:
        path = self.home.logs / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if path.exists() else []
        return "\n  ".join([f"its log {path} ends with:", *lines])
