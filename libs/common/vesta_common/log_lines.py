"""Writes log lines in batches, so that a busy process makes one system call, and wakes up the reader of its log once, for many lines."""

import atexit
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any, TextIO

INTERVAL = timedelta(milliseconds=100)


class LogLines:
    """Log lines on the way to a stream, in order. Thread-safe.

    A line that may wait is written within `interval`, with the next line that may not wait, or when the process exits. A kill of the
    process loses the lines that wait.

    Args:
        stream: must not be closed.
        interval: between two batches.
    """

    def __init__(self, stream: TextIO, interval: timedelta = INTERVAL) -> None:
        self._stream = stream
        self._interval_seconds = interval.total_seconds()
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._has_waiting = threading.Event()
        threading.Thread(target=self._run, name="log-lines", daemon=True).start()
        atexit.register(self.flush)

    def add(self, line: str) -> None:
        """Adds a line that may wait."""
        with self._lock:
            self._waiting.append(line)
        if not self._has_waiting.is_set():
            self._has_waiting.set()

    def write(self, line: str) -> None:
        """Writes a line, after those that wait."""
        with self._lock:
            self._waiting.append(line)
            self._write_waiting()

    def flush(self) -> None:
        """Writes the lines that wait."""
        with self._lock:
            self._write_waiting()

    def _write_waiting(self) -> None:
        lines, self._waiting = self._waiting, []
        if lines:
            self._stream.write("\n".join((*lines, "")))
            self._stream.flush()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._has_waiting.wait()
            pause.wait(self._interval_seconds)
            self._has_waiting.clear()
            with suppress(OSError):  # nobody reads the log any more; the lines are lost
                self.flush()


class BatchingLogger:
    """A logger for structlog. Lines of the levels debug and info wait; warnings and errors are written at once."""

    def __init__(self, lines: LogLines) -> None:
        self.debug = self.info = lines.add
        self.warning = self.error = self.critical = lines.write


def batching_logger_factory(stream: TextIO) -> Any:
    """Returns a `logger_factory` for structlog."""
    lines = LogLines(stream)
    return lambda *_: BatchingLogger(lines)
