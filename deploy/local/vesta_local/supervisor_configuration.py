"""The configuration of supervisord."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from vesta_local.home import Home
from vesta_local.processes import HOME_MARK
from vesta_local.program import Program

LOG_BYTES_MAX = 10 * 1024 * 1024
LOG_BACKUPS = 3
# supervisord gives up after this many failed starts, which must not happen here.
RETRIES = 1_000_000


def configuration_of(home: Home, socket: Path, programs: Sequence[Program]) -> str:
    """Returns the configuration for these programs.

    Raises:
        ValueError: an environment variable of a program contains both kinds of quotes.
    """
    parts = [
        f"[unix_http_server]\nfile={_escaped(str(socket))}\nchmod=0600\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
        "[supervisord]\nsilent=true\nnocleanup=true\nminfds=4096\nidentifier=vesta\n",
        f"logfile={_escaped(str(home.logs / 'supervisord.log'))}\n",
        f"logfile_maxbytes={LOG_BYTES_MAX}\nlogfile_backups={LOG_BACKUPS}\n",
        f"pidfile={_escaped(str(home.run / 'supervisord.pid'))}\n",
    ]
    return "".join([*parts, *(_section(home, program) for program in programs)])


def _section(home: Home, program: Program) -> str:
    variables = {**program.environment, HOME_MARK: str(home.root)}
    lines = {
        "command": " ".join(_quoted(part) for part in program.command),
        "environment": ",".join(f"{name}={_quoted_plainly(value)}" for name, value in variables.items()),
        "directory": _escaped(str(program.directory or home.root)),
        "autostart": "false",
        "autorestart": "true",
        "startsecs": "0",
        "startretries": RETRIES,
        "stopsignal": program.stop_signal,
        "stopwaitsecs": program.stop_wait_seconds,
        "redirect_stderr": "true",
        "stdout_logfile": _escaped(str(home.logs / f"{program.name}.log")),
        "stdout_logfile_maxbytes": LOG_BYTES_MAX,
        "stdout_logfile_backups": LOG_BACKUPS,
    }
    return f"[program:{program.name}]\n" + "".join(f"{key}={value}\n" for key, value in lines.items())


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _quoted(value: str) -> str:
    """Quotes a word of a command, which supervisord parses like a shell."""
    return _escaped(shlex.quote(value))


def _quoted_plainly(value: str) -> str:
    """Quotes a value of supervisord's `environment`, which has no escape characters.

    Raises:
        ValueError: the value contains both kinds of quotes.
    """
    quote = '"' if '"' not in value else "'"
    if quote in value:
        raise ValueError(f"a value with both kinds of quotes cannot be passed to supervisord: {value}")
    return f"{quote}{_escaped(value)}{quote}"
