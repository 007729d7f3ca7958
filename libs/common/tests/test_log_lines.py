"""Log lines wait for a batch, in order, unless they are warnings."""

import io
import subprocess
import sys
import time
from datetime import timedelta

from vesta_common.log_lines import BatchingLogger, LogLines

PATIENCE_SECONDS = 30.0
NEVER = timedelta(hours=1)


class Stream(io.StringIO):
    """Counts the writes."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def test_lines_that_may_wait_are_written_together() -> None:
    stream = Stream()
    lines = LogLines(stream, NEVER)
    for number in range(3):
        lines.add(f"request {number}")
    assert stream.getvalue() == ""
    lines.flush()
    lines.flush()
    assert (stream.getvalue(), stream.writes) == ("request 0\nrequest 1\nrequest 2\n", 1)


def test_a_warning_is_written_at_once_after_the_lines_before_it() -> None:
    stream = Stream()
    logger = BatchingLogger(LogLines(stream, NEVER))
    logger.info("request")
    logger.warning("trouble")
    assert stream.getvalue() == "request\ntrouble\n"


def test_lines_wait_for_the_interval_only() -> None:
    stream = Stream()
    lines = LogLines(stream, timedelta(milliseconds=1))
    for number in range(2):
        lines.add(f"request {number}")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while f"request {number}" not in stream.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_a_process_writes_waiting_lines_before_it_exits() -> None:
    code = (
        "import sys, structlog; from vesta_common import log; log.start_logging('sample', 'info', 'json', in_batches=True); "
        "structlog.get_logger().info('last_words'); sys.exit(3)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert '"event": "last_words"' in ended.stderr
