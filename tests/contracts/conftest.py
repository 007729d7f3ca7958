"""Fixtures: peer services, fake and real."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.extend(map(str, sorted((Path(__file__).parents[2] / "services").glob("*/tests"))))

from fakes import FAKES
from peers import Peer, Resources
from real_services import peer_called_by, set_up
from vesta_common.identity import PEERS
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.storage.objects import ObjectStore
from vesta_local.engines.addresses import admin_settings
from vesta_local.testing import WholePlatform, identity_of


@pytest.fixture(scope="session")
def resources(platform: WholePlatform) -> Resources:
    """What the real services have."""
    return set_up(platform)


@pytest.fixture(scope="session")
def objects(platform: WholePlatform) -> ObjectStore:
    """An object store for the fakes."""
    return ObjectStore.of(admin_settings(platform.home).model_copy(update={"s3_prefix": "contracts/"}))


@pytest.fixture
def peer(request: pytest.FixtureRequest, platform: WholePlatform, objects: ObjectStore) -> Iterator[Peer]:
    """A fake or real peer; see `contract`. Fails if the test does not call the methods that it is about."""
    kind, caller, methods = request.param
    if kind == "real":
        with peer_called_by(caller, platform, request.getfixturevalue("resources")) as found:
            yield found
    else:
        servicers, has = FAKES[caller].make(objects)
        server = Server(identity_of("peers"), "127.0.0.1:0", servicers)
        server.start()
        with open_channel(server.address, identity_of(caller)) as channel:
            found = Peer(has, dict.fromkeys(PEERS[caller], channel), objects)
            yield found
        server.stop()
    assert methods <= found.called, f"{methods - found.called} was not called"
