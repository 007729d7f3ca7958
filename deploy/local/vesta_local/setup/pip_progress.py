"""Runs pip and shows its progress: the current download with its size, then the number of installed packages."""

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

from vesta_local.setup.downloads import format_size

PIPE_INTERVAL_SECONDS = 15.0
TERMINAL_INTERVAL_SECONDS = 0.5
OUTPUT_LINES = 40
_DOWNLOADING = re.compile(r"\s*Downloading (?:\S*/)?(?P<name>[^-\s]+)-\S+\.(?:whl|tar\.gz|zip)(?: \(.*\))?$")
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)$")
_INSTALLING = re.compile(r"Installing collected packages: (.+)$")


class PipState:
    """The progress of pip, parsed from its output with `--progress-bar raw`."""

    def __init__(self) -> None:
        self._name = ""
        self._done_bytes = 0
        self._current = (0, 0)
        self.installing = 0

    def take(self, line: str) -> bool:
        """Parses a line of output; returns False if it contains no progress."""
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
        """Formats the progress as one line.

        Args:
            installed: the number of packages that are installed so far.
        """
        if self.installing:
            return f"installing: {min(installed, self.installing)} of {self.installing} packages"
        if self._name:
            here, total = self._current
            return f"downloading: {format_size(self._done_bytes + here)} so far ({self._name}, {format_size(here)} of {format_size(total)})"
        return "looking up what is needed"


def run_pip(python: Path | str, arguments: Sequence[str], site_packages: Path, out: TextIO = sys.stdout) -> None:
    """Runs `pip install` and shows its progress: one updated line on a terminal, otherwise a line every 15 seconds.

    Raises:
        RuntimeError: pip failed; contains the end of its output.
    """
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "raw", *arguments]
    state, last = PipState(), deque[str](maxlen=OUTPUT_LINES)
    start = time.time()
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
            show(state.text(_count(site_packages, start) if state.installing else 0), ended)
    if pip.returncode:
        raise RuntimeError("\n".join([f"pip failed with status {pip.returncode}; it ended with:", *last]))


def _read(pip: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    assert pip.stdout is not None
    for line in pip.stdout:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _count(site_packages: Path, since: float) -> int:
    """Counts the packages that were installed since a time in seconds since 1970."""
    count = 0
    for folder in site_packages.glob("*.dist-info"):
        with suppress(FileNotFoundError):  # pip renames packages that it replaces to ~…, and deletes them at the end
            count += folder.stat().st_ctime >= since
    return count


def _display(out: TextIO) -> Callable[[str, bool], None]:
    """Returns a function that shows the progress at most once per interval, and always at the end."""
    is_terminal = out.isatty()
    start = time.monotonic()
    shown = start - PIPE_INTERVAL_SECONDS + 1.0  # shows nothing for runs of less than a second

    def show(text: str, is_last: bool) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < (TERMINAL_INTERVAL_SECONDS if is_terminal else PIPE_INTERVAL_SECONDS) and not is_last:
            return
        shown = now
        line = f"  {now - start:4.0f} s  {text}"
        out.write(f"\r\x1b[K{line}" if is_terminal else f"{line}\n")
        if is_terminal and is_last:
            out.write("\n")
        out.flush()

    return show
