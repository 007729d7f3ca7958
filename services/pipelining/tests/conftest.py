"""Fixtures: the pipelining service on a real database and broker, with fake services; tests can kill and restart it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pipelining_builders import FakeConnection, FakeServing
from pipelining_service import DEAD, FRAMES, OBSERVATIONS, Pipelining
from vesta_common.errors import VestaError
from vesta_common.events.broker import Broker, open_producer
from vesta_common.rpc.server import Server
from vesta_local.testing import identity_of
from vesta_pipelining.settings import Settings


@pytest.fixture
def pipelining(
    service_settings: Callable[[str], dict[str, Any]], create_topics: Callable[..., None]
) -> Iterator[Pipelining]:
    create_topics(FRAMES, OBSERVATIONS, partitions=3)
    create_topics(DEAD)
    serving, connection = FakeServing(), FakeConnection()
    peers = Server(identity_of("peers"), "127.0.0.1:0", [serving, connection])
    peers.start()
    settings = Settings(
        **service_settings("pipelining"), serving_address=peers.address, connection_address=peers.address
    )
    found = Pipelining(settings, serving, connection, open_producer(Broker.of(settings)))
    found.start()
    yield found
    with suppress(VestaError):
        found.stop()
    found.producer.close(timeout=1)
    peers.stop()
