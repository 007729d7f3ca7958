"""Every log line is one JSON object that names its service and its trace, whoever wrote it."""

import json
import subprocess
import sys

WRITES = """
import logging
import structlog
from vesta_common import trace
from vesta_common.log import start_logging

start_logging("sample", "info", {log_format!r})
trace.start_tracing("sample")
log = structlog.get_logger()
log.debug("too_quiet")
with trace.span("test", {{}}):
    log.info("item_added", size_bytes=3)
secret = "hunter2"
try:
    raise ValueError("it broke")
except ValueError:
    log.exception("work_failed")
logging.getLogger("botocore").warning("slow %s", "down")
"""


def lines(log_format: str) -> list[str]:
    """What a process of its own writes: logging is configured once a process."""
    ran = subprocess.run(
        [sys.executable, "-c", WRITES.format(log_format=log_format)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ran.stderr.splitlines()


def test_lines_are_json_with_service_level_and_trace() -> None:
    added, failed, foreign = (json.loads(line) for line in lines("json"))
    assert (added["event"], added["size_bytes"], added["level"], added["service"]) == (
        "item_added",
        3,
        "info",
        "sample",
    )
    assert len(added["trace_id"]) == 32
    assert "it broke" in failed["exception"]
    assert (foreign["event"], foreign["logger"], foreign["service"]) == ("slow down", "botocore", "sample")


def test_the_console_shows_no_values_of_variables() -> None:
    shown = "\n".join(lines("console"))
    assert "it broke" in shown
    assert shown.count("hunter2") == 0
