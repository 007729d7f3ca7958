"""The whole platform: starts it in order, waits until it is healthy, tells how it is, stops it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from vesta_local import services
from vesta_local.engines import events, inference, objects, postgres
from vesta_local.home import Home
from vesta_local.program import Program
from vesta_local.supervisor import Supervisor
from vesta_local.topics import topics

ENGINES = ("postgres", "objects", "events", "inference")
HEALTH_DEADLINE = timedelta(seconds=120)
_POLL_SECONDS = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    address: str
    state: str
    memory_mib: float


class Platform:
    """A platform in its home.

    Args:
        only: the programs to start; all where empty.
    """

    def __init__(self, home: Home, only: Sequence[str] = ()) -> None:
        self.home = home
        self.supervisor = Supervisor(home)
        engines = [postgres.program(home), objects.program(home), events.program(home), inference.program(home)]
        wanted = [*engines, *services.programs(home)]
        self.programs: dict[str, Program] = {
            program.name: program for program in wanted if not only or program.name in only
        }

    def up(self, say: Say = lambda _: None, deadline: timedelta = HEALTH_DEADLINE) -> None:
        """Starts what does not run and waits until all of it is healthy.

        Raises:
            RuntimeError: a package is not installed, or a program is not healthy in time; names its log.
        """
        wanted_services = [name for name in self.programs if name not in ENGINES]
        missing = [name for name in services.missing_packages() if name in wanted_services]
        if missing:
            raise RuntimeError(
                f"not installed: {', '.join(f'vesta_{name}' for name in missing)}; `make setup` installs them"
            )
        for engine in (postgres, objects, events, inference):
            if engine.__name__.rpartition(".")[2] in self.programs:
                engine.prepare(self.home)
        self.home.write_addresses()
        services.write_settings(self.home)
        if not self.supervisor.is_running():
            self.supervisor.start(list(self.programs.values()))
        end = time.monotonic() + deadline.total_seconds()
        with ThreadPoolExecutor(2) as pool:  # the database comes up beside the object store and what lies on it
            for waiting in [
                pool.submit(self._bring_up_postgres, end, say),
                pool.submit(self._bring_up_objects, end, say),
            ]:
                waiting.result()
        self._start(wanted_services)
        self._await(wanted_services, end, say)

    def _bring_up_postgres(self, end: float, say: Say) -> None:
        if "postgres" in self.programs:
            self._start(["postgres"])
            self._await(["postgres"], end, say)
            postgres.finish(self.home)

    def _bring_up_objects(self, end: float, say: Say) -> None:
        if "objects" not in self.programs:
            return
        self._start(["objects"])
        self._await(["objects"], end, say)
        objects.finish(self.home)
        inference.finish(self.home)
        later = [name for name in ("events", "inference") if name in self.programs]
        self._start(later)
        self._await(later, end, say)
        if "events" in later:
            events.create_topics(self.home, topics())

    def down(self) -> None:
        """Stops everything: services first, then engines, the object store last."""
        if self.supervisor.is_running():
            running = [state.name for state in self.supervisor.states()]
            outer = [name for name in running if name not in ENGINES]
            self.supervisor.stop([outer, ["events", "inference", "postgres"], ["objects"]])

    def rows(self) -> list[Row]:
        """How every program is."""
        if not self.supervisor.is_running():
            return [Row(name, program.address, "down", 0) for name, program in self.programs.items()]
        states = {state.name: state for state in self.supervisor.states()}
        with ThreadPoolExecutor(len(self.programs)) as pool:
            healthy = dict(
                zip(self.programs, pool.map(lambda program: program.is_healthy(), self.programs.values()), strict=True)
            )
        rows = []
        for name, program in self.programs.items():
            found = states.get(name)
            state = "healthy" if healthy[name] else (found.state.lower() if found else "not started")
            rows.append(Row(name, program.address, state, (found.memory_bytes if found else 0) / 2**20))
        return rows

    def wait_healthy(self, names: Sequence[str], deadline: timedelta = HEALTH_DEADLINE) -> None:
        """Waits until these programs are healthy.

        Raises:
            RuntimeError: one is not in time; names its log.
        """
        self._await(names, time.monotonic() + deadline.total_seconds(), lambda _: None)

    def _start(self, names: Sequence[str]) -> None:
        running = {state.name for state in self.supervisor.states() if state.state in {"RUNNING", "STARTING"}}
        for name in names:
            if name not in running:
                self.supervisor.run(name)

    def _await(self, names: Sequence[str], end: float, say: Say) -> None:
        waiting = list(names)
        while waiting:
            for name in list(waiting):
                if self.programs[name].is_healthy():
                    waiting.remove(name)
                    say(f"{name} is healthy")
            if waiting and time.monotonic() > end:
                logs = ", ".join(str(self.home.logs / f"{name}.log") for name in waiting)
                raise RuntimeError(f"not healthy in time: {', '.join(waiting)}; see {logs}")
            if waiting:
                time.sleep(_POLL_SECONDS)
