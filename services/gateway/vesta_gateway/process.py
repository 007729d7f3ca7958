"""The process of the gateway: from its start to its graceful stop."""

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

import structlog
from vesta_common.clock import SystemClock
from vesta_common.identity import CredentialsError
from vesta_common.metrics import serve_metrics
from vesta_common.settings import EXIT_WRONG_SETTINGS

from vesta_gateway.app import Gateway
from vesta_gateway.settings import Settings

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Runs the gateway process until SIGTERM or SIGINT, then drains. A second signal ends the drain period."""
    stopping, second_signal = asyncio.Event(), asyncio.Event()
    _on_signals(stopping.set)
    try:
        gateway = Gateway(settings, SystemClock())
    except CredentialsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_WRONG_SETTINGS)
    await gateway.start()
    metrics = serve_metrics(settings.metrics_address, gateway.registry)
    log.info("service_started", rest=gateway.rest_address, grpc=gateway.grpc_address, metrics=metrics)
    await stopping.wait()
    _on_signals(second_signal.set)
    await gateway.drain()
    log.info("service_draining", milliseconds=settings.drain_ms)
    with suppress(TimeoutError):
        await asyncio.wait_for(second_signal.wait(), settings.drain_ms / 1000)
    await gateway.stop()
    log.info("service_stopped")


def _on_signals(act: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, act)
