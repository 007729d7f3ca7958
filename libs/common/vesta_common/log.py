"""Structured logging: an event name with fields, one JSON line per event, with the trace id."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

from vesta_common import trace
from vesta_common.log_lines import batching_logger_factory


def start_logging(service: str, level: str, log_format: str, *, in_batches: bool = False) -> None:
    """Configures logging for the process. Warnings of other libraries use the same format.

    Args:
        service: the service name, added to every line.
        level: `debug`, `info`, `warning` or `error`; the minimum level of the service's own events.
        log_format: `json` for one JSON object per line, or `console` for human-readable output.
        in_batches: whether lines below `warning` may wait for a tenth of a second (`vesta_common.log_lines`), as in a process that writes
            one for each request.
    """
    as_console = log_format == "console"
    # Tracebacks omit the values of variables, which may be image bytes or credentials.
    ending: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if as_console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    beginning: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _identify(service),
    ]
    structlog.configure(
        processors=[*beginning, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        # One system call per line. print() writes the newline apart, which also wakes up the reader of the log twice.
        logger_factory=batching_logger_factory(sys.stderr) if in_batches else structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*beginning, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("kafka").setLevel(logging.ERROR)  # it warns too often; services log failures


def _identify(service: str) -> Processor:
    """Returns a processor that adds the service name and the trace id."""

    def add(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG001 - structlog's signature
        event.setdefault("service", service)
        trace_id = trace.trace_id()
        if trace_id:
            event["trace_id"] = trace_id
        return event

    return add
