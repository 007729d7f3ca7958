"""Logs: an event's name with fields, a line of JSON each, with the trace it belongs to."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from vesta_common import trace


def start_logging(service: str, level: str, log_format: str) -> None:
    """Configures logging for the process; other libraries' warnings come out the same way."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s %(levelname)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.ERROR)  # it warns of every slow moment; what matters we log ourselves
    renderer: Any = structlog.dev.ConsoleRenderer() if log_format == "console" else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    _bound["service"] = service


_bound: dict[str, str] = {}


def _add_trace(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG001 - structlog's signature
    """Names the service, which other threads' context lacks, and the trace."""
    for key, value in _bound.items():
        event.setdefault(key, value)
    found = trace.trace_id()
    if found:
        event["trace_id"] = found
    return event
