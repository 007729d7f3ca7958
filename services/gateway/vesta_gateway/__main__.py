"""Entry point of the gateway process."""

import asyncio

import uvloop
from vesta_common import log
from vesta_common.rpc.trace_export import start_tracing_of
from vesta_common.settings import load_settings

from vesta_gateway.process import serve
from vesta_gateway.settings import Settings

if __name__ == "__main__":
    settings = load_settings(Settings)
    log.start_logging("gateway", settings.log_level, settings.log_format, in_batches=True)
    start_tracing_of("gateway", settings, trusts_caller_sampling=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))
