"""Up, status and down: idempotent, with clear messages, and without leftovers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import psutil
import psycopg
import pytest
from vesta_admin import database
from vesta_local import services, testing
from vesta_local.engines import postgres, unprivileged
from vesta_local.home import Home
from vesta_local.platform import Platform
from vesta_local.processes import await_exit, is_marked
from vesta_local.supervisor import ExitCounter, ProcessState

ENGINES = ("postgres", "objects", "events")


@pytest.fixture
def platform_apart(broker_kind: str) -> Iterator[Platform]:
    """Separate engines for one test."""
    with testing.running_platform(block=1, only=ENGINES, broker=broker_kind) as platform:
        yield platform


def _processes_of(home: Home) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if is_marked(process, home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _cli(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vesta_local", "--home", str(home.root), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.own_engines
def test_a_second_up_starts_nothing_anew(engines: Platform) -> None:
    before = {name: engines.supervisor.pid(name) for name in ENGINES}
    engines.up()
    assert {name: engines.supervisor.pid(name) for name in ENGINES} == before


@pytest.mark.own_engines
def test_what_was_known_is_known_after_down_and_up_and_nothing_runs_in_between(platform_apart: Platform) -> None:
    with psycopg.connect(postgres.url(platform_apart.home), autocommit=True) as connection:
        connection.execute("CREATE TABLE survivors AS SELECT 7 AS id")
    assert platform_apart.down()
    assert _processes_of(platform_apart.home) == []
    assert not platform_apart.down()
    platform_apart.up()
    with psycopg.connect(postgres.url(platform_apart.home)) as connection:
        assert connection.execute("SELECT id FROM survivors").fetchone() == (7,)


@pytest.mark.own_engines
def test_when_supervisord_was_killed_up_begins_anew_and_down_leaves_nothing(platform_apart: Platform) -> None:
    for _ in range(2):
        os.kill(platform_apart.supervisor.own_pid(), signal.SIGKILL)
        assert _processes_of(platform_apart.home) != []
        platform_apart.up()
    os.kill(platform_apart.supervisor.own_pid(), signal.SIGKILL)
    assert platform_apart.down()
    assert _processes_of(platform_apart.home) == []


SHY = """
import os, pathlib, subprocess, sys
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
import psutil
from vesta_local.processes import is_marked, mark_option, memory_bytes
class Home:
    root = pathlib.Path("/some where/.vesta")
hidden = "import sys; from vesta_common.sandbox import kernel; kernel.forbid_dumps(); print(); sys.stdin.read()"
command = [sys.executable, "-X", mark_option(Home), "-c", hidden]
with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shy:
    shy.stdout.readline()
    try:
        psutil.Process(shy.pid).environ()
    except psutil.AccessDenied:
        print(is_marked(psutil.Process(shy.pid), Home), memory_bytes(shy.pid) > 1_000_000)
"""


def test_a_program_that_hides_its_memory_is_known_and_measured_all_the_same() -> None:
    """Also for users other than root, who cannot read the environment of a sandboxed process."""
    ended = subprocess.run([sys.executable, "-c", SHY], check=True, capture_output=True, text=True, cwd="/", timeout=60)
    assert ended.stdout == "True True\n"


@pytest.mark.own_engines
def test_a_platform_bound_to_a_process_ends_with_it_even_when_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import sys, pathlib
from vesta_local import testing
from vesta_local.home import Home
from vesta_local.platform import Platform
Platform(Home(pathlib.Path({str(tmp_path)!r}), testing.ports(block=1)), ["postgres"], bound=True).up()
print("up", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        family = _processes_of(Home(tmp_path))
        assert family != []
        holder.kill()
    assert await_exit(family, timedelta(seconds=20)) == []


@pytest.mark.own_engines
def test_status_is_a_table_for_people_and_json_for_programs(engines: Platform) -> None:
    rows = {row["name"]: row for row in json.loads(_cli(engines.home, "status", "--json").stdout)}
    assert rows["postgres"]["state"] == "healthy"
    assert rows["postgres"]["memory_mib"] > 0
    assert rows["gateway"]["state"] == "stopped"
    assert engines.home.address("postgres") in _cli(engines.home, "status").stdout


def test_logs_of_an_unknown_program_name_those_there_are(engines: Platform) -> None:
    answer = _cli(engines.home, "logs", "nobody", "--no-follow")
    assert answer.returncode != 0
    assert "postgres" in answer.stderr


def test_an_unknown_program_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="there is no nobody; there are postgres"):
        Platform(Home(tmp_path), ["nobody"])


@pytest.mark.parametrize("name", ["50% done", "the #1", "mine ;-)", "two\nlines", "blank at the end ", "5'9\" tall"])
def test_a_home_whose_path_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeError, match="use another folder"):
        Platform(Home(tmp_path / name))


@pytest.mark.own_engines
def test_status_tells_of_a_program_that_a_running_supervisord_does_not_know_yet(tmp_path: Path) -> None:
    platform = Platform(Home(tmp_path, testing.ports(block=1)), ["postgres", "gateway"], bound=True)
    platform.home.make_sockets()
    platform.supervisor.start([platform.programs["postgres"]])
    try:
        assert {row.name: row.state for row in platform.rows()} == {
            "postgres": "stopped",
            "gateway": "down",
            "supervisor": "healthy",
        }
    finally:
        platform.down()


def test_a_program_that_does_not_get_healthy_is_named_with_the_end_of_its_log(engines: Platform) -> None:
    (engines.home.logs / "gateway.log").write_text("a last word\n")
    with pytest.raises(RuntimeError, match=r"gateway does not become healthy(?s:.*)a last word"):
        engines.wait_healthy(["gateway"], timedelta(0))


def test_a_program_that_exits_again_and_again_is_reported_after_its_third_exit_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VESTA_ANNOTATION_LISTEN_ADRESS", "127.0.0.1:1")  # misspelt, so that the service fails to start
    platform = Platform(Home(tmp_path, testing.ports(block=1)), ["annotation"], bound=True)
    try:
        with pytest.raises(RuntimeError, match=r"annotation has exited 3 times(?s:.*)LISTEN_ADRESS: unknown setting"):
            platform.up()
        # It continues to exit while the error is raised, but not for long.
        assert 3 <= (platform.home.logs / "supervisord.log").read_text().count("exited: annotation") <= 4
    finally:
        platform.down()


def test_exits_are_counted_by_the_processes_that_are_no_more() -> None:
    exits = ExitCounter()
    for pid in (0, 11, 11, 0, 12, 13):
        exits.observe([ProcessState("gateway", "RUNNING", pid), ProcessState("postgres", "RUNNING", 7)])
    assert exits.counts == {"gateway": 2}


@pytest.mark.own_engines
@pytest.mark.skipif(not unprivileged.needs_other_user(), reason="only root runs PostgreSQL as somebody else")
def test_root_may_keep_the_platform_in_a_folder_closed_to_others(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    platform = Platform(Home(closed / "home", testing.ports(block=1)), ["postgres"])
    try:
        platform.up()
    finally:
        platform.down()


@pytest.mark.parametrize(
    ("gpus", "words"),
    [(0, "no GPU with CUDA: training and serving are tested only on the CPU"), (1, "1 GPU with CUDA"), (2, "2 GPUs")],
)
def test_the_head_of_a_test_run_says_what_is_computed_on(gpus: int, words: str) -> None:
    assert testing.hardware_line(gpus).startswith(words)


def test_the_services_that_are_migrated_are_those_that_run() -> None:
    folders = {path.name for path in Path(__file__).parents[3].glob("services/*") if (path / "pyproject.toml").exists()}
    assert set(services.NAMES) == set(database.SERVICES) == folders


@pytest.mark.parametrize("name", services.NAMES)
def test_a_service_is_given_settings_that_it_has_and_all_that_it_needs(tmp_path: Path, name: str) -> None:
    fields = import_module(f"vesta_{name}.settings").Settings.model_fields
    prefix = f"VESTA_{name.upper()}_"
    given = {variable.removeprefix(prefix).lower() for variable in services.environment(Home(tmp_path), name)}
    needed = {field for field, description in fields.items() if description.is_required()}
    assert needed <= given <= fields.keys()
