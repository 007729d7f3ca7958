"""What supervisord is told of one program."""

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
        state: says in the table how it is, where healthy or not is not enough.
        stop_signal: how it is asked to end; `KILL` where asking is slow and killing is safe.
        stop_wait_seconds: how long it may take to end before it is killed.
        directory: where it works; the platform's folder if none.
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
