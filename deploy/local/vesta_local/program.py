"""What supervisord is told of one program."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Program:
    """One process of the platform.

    Attributes:
        name: names its log and its row in the table.
        address: HOST:PORT of its main door.
        is_healthy: asks it a real question; never raises.
        user: the operating system's user to run as; empty for our own.
        stop_signal: how it is asked to end; `KILL` where asking is slow and killing is safe.
    """

    name: str
    command: list[str]
    address: str
    is_healthy: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""
    stop_signal: str = "TERM"
    stop_wait_seconds: int = 12
    directory: Path | None = None


def unprivileged_user() -> str:
    """Whom to run as what refuses to run as root: nobody, where we are root."""
    return "nobody" if os.geteuid() == 0 else ""
