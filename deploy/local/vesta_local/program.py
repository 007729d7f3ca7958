"""The definition of one program for supervisord."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Program:
    """One process of the platform.

    Attributes:
        name: of its log and of its row in the table.
        address: HOST:PORT of its main listener.
        is_healthy: the health check; never raises.
        state: the state for the table, if healthy or not is not sufficient.
        stop_signal: the signal to stop it; `KILL` if a graceful stop is slow and a kill is safe.
        stop_wait_seconds: the time until it is killed.
        directory: its working directory; the home if None.
    """

    name: str
    command: list[str]
    address: str
    is_healthy: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_wait_seconds: int = 12
    directory: Path | None = None
    state: Callable[[], str] | None = None
