"""Runs pip and shows how far it is: what is being downloaded and how much of it, then how many packages are installed."""

import queue
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from vesta_local.setup.downloads import human

PIPE_INTERVAL_SECONDS = 15.0
TERMINAL_INTERVAL_SECONDS = 0.5
OUTPUT_LINES = 40
_DOWNLOADING = re.compile(r"\s*Downloading (?:\S*/)?(?P<name>[^-\s]+)-\S+\.(?:whl|tar\.gz|zip)(?: \(.*\))?$")
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)$")
_INSTALLING = re.compile(r"Installing collected packages: (.+)$")


class PipState:
    """How far pip is, by the lines that it prints with `--progress-bar raw`."""

    def __init__(self) -> None:
        self._name = ""
        self._done_bytes = 0
        self._current = (0, 0)
        self.installing = 0

    def take(self, line: str) -> bool:
        """Takes in a line; False where it says nothing of progress."""
        if progress := _PROGRESS.match(line):
            self._current = int(progress[1]), int(progress[2])
        elif downloading := _DOWNLOADING.match(line):
            self._done_bytes += self._current[0]
            self._name, self._current = downloading["name"], (0, 0)
        elif installing := _INSTALLING.match(line):
            self._done_bytes += self._current[0]
            self._name, self._current = "", (0, 0)
            self.installing = len(installing[1].split(","))
        else:
            return False
        return True

    def text(self, installed: int) -> str:
        """One line for people.

        Args:
            installed: how many of those that are being installed are in place.
        """
        if self.installing:
            return f"installing: {min(installed, self.installing)} of {self.installing} packages"
        if self._name:
            here, total = self._current
            return (
                f"downloading: {human(self._done_bytes + here)} so far ({self._name}, {human(here)} of {human(total)})"
            )
        return "looking up what is needed"


def run_pip(python: Path | str, arguments: Sequence[str], site_packages: Path, out: TextIO = sys.stdout) -> None:
    """Runs `pip install`, and shows its progress: on a terminal in one line, else in a line every quarter of a minute.

    Raises:
        RuntimeError: pip fails; shows the end of what it printed.
    """
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "raw", *arguments]
    state, last = PipState(), deque[str](maxlen=OUTPUT_LINES)
    begun = time.time()
    show = _display(out)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(pip, lines), daemon=True).start()
        ended = False
        while not ended:
            try:
                line = lines.get(timeout=TERMINAL_INTERVAL_SECONDS)
                ended = line is None
                if line is not None and not state.take(line):
                    last.append(line)
            except queue.Empty:
                pass
            show(state.text(_count(site_packages, begun) if state.installing else 0), ended)
    if pip.returncode:
        raise RuntimeError("\n".join([f"pip failed with status {pip.returncode}; it ended with:", *last]))


def _read(pip: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    assert pip.stdout is not None
    for line in pip.stdout:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _count(site_packages: Path, since: float) -> int:
    """How many packages have been put there since a time, in seconds since 1970."""
    count = 0
    for folder in site_packages.glob("*.dist-info"):
        with suppress(FileNotFoundError):  # pip renames what it replaces to ~…, and deletes it when it is done
            count += folder.stat().st_ctime >= since
    return count


def _display(out: TextIO) -> Callable[[str, bool], None]:
    """Shows a state, but not too often; the last one always."""
    is_terminal = out.isatty()
    begun = time.monotonic()
    shown = begun - PIPE_INTERVAL_SECONDS + 1.0  # nothing is shown of what takes no second

    def show(text: str, is_last: bool) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < (TERMINAL_INTERVAL_SECONDS if is_terminal else PIPE_INTERVAL_SECONDS) and not is_last:
            return
        shown = now
        line = f"  {now - begun:4.0f} s  {text}"
        out.write(f"\r\x1b[K{line}" if is_terminal else f"{line}\n")
        if is_terminal and is_last:
            out.write("\n")
        out.flush()

    return show
