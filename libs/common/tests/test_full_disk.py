"""A disk without room is told by readiness with what helps, loses nothing, and is forgotten once there is room again."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from vesta_common.disk_space import disk_space
from vesta_common.runtime.engine_checks import engine_checks_of
from vesta_common.runtime.engine_watch import POSTGRES, EngineCheck, EngineWatch, ExplainedError
from vesta_common.runtime.self_checks import self_checks_of
from vesta_common.settings import ServiceSettings
from vesta_local.engines import postgres
from vesta_local.home import Home
from vesta_local.platform import Platform
from vesta_local.testing import identity_of, ports, scratch_folder

pytestmark = pytest.mark.own_engines
PATIENCE_SECONDS = 30.0
SIZE = "100m"  # PostgreSQL needs 43 MB


def a_certificate() -> x509.Certificate:
    return identity_of("sample").credentials.certificate


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own, which the user of PostgreSQL can reach."""
    folder = scratch_folder()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"only root can mount a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    shutil.rmtree(folder)


def fill(disk: Path) -> Path:
    """Writes a file that takes all the room."""
    path = disk / "fill"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(64 * 1024)):
            pass
    assert disk_space(disk).free_bytes == 0
    return path


def problem_of(attempt: EngineCheck, name: str) -> str:
    watch = EngineWatch({name: attempt}, interval=timedelta(milliseconds=10))
    watch.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (problems := watch.problems()) and "not been checked" in problems[0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    watch.stop()
    return "".join(problems)


def test_a_database_without_room_is_told_keeps_what_it_has_and_goes_on_by_itself(small_disk: Path) -> None:
    home = Home(small_disk, ports(block=8))
    engine = Platform(home, ["postgres"], bound=True)
    engine.up()
    try:
        url = postgres.url(home).rpartition("/")[0] + "/postgres"
        attempt = engine_checks_of("sample", ServiceSettings(postgres_url=url), (), has_objects=False)[POSTGRES]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
            assert problem_of(attempt, POSTGRES) == ""

            full = fill(small_disk)
            assert (
                problem_of(attempt, POSTGRES)
                == "PostgreSQL has no free disk space; free disk space or enlarge its disk"
            )
            with pytest.raises(psycopg.errors.DiskFull):
                connection.execute("INSERT INTO kept SELECT generate_series(1, 100000)")

            full.unlink()
            assert problem_of(attempt, POSTGRES) == ""
            assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]
    finally:
        engine.down()


def test_a_folder_of_the_service_without_room_is_told(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    name = f"the folder {small_disk}"
    attempt = self_checks_of(ServiceSettings(postgres_url="postgresql://x"), a_certificate)[name]
    assert problem_of(attempt, name) == ""
    full = fill(small_disk)
    assert problem_of(attempt, name) == (
        f"{name} is not writable (No space left on device); free space, or enlarge it (`tmpSize` and `workSize` in the chart)"
    )
    full.unlink()
    assert problem_of(attempt, name) == ""


def test_a_work_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    class Settings(ServiceSettings):
        work_folder: str

    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "work"
    attempt = self_checks_of(Settings(postgres_url="postgresql://x", work_folder=str(folder)), a_certificate)[
        f"the folder {folder}"
    ]
    with pytest.raises(ExplainedError, match=r"is not writable \(Not a directory\)"):
        attempt()
