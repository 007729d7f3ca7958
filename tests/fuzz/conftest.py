"""How much the fuzz tests try, and where."""

import os
from collections.abc import Iterator

import grpc
import pytest
from ground import Effort, Ground, furnish
from pictures import jpegs
from vesta import Vesta
from vesta_local.testing import WholePlatform

CASES_OF_THE_SUITE = 370
SEED_OF_THE_SUITE = 17
PICTURES = 4


@pytest.fixture(scope="session")
def effort() -> Effort:
    """`make fuzz cases=N seed=S` sets it."""
    return Effort(
        int(os.environ.get("FUZZ_CASES") or CASES_OF_THE_SUITE), int(os.environ.get("FUZZ_SEED") or SEED_OF_THE_SUITE)
    )


@pytest.fixture(scope="module")
def ground(platform: WholePlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A project of the fuzz tests' own."""
    address, key = platform.addresses["gateway_grpc"], platform.owner_key
    files = list(jpegs(PICTURES, 96, 64))
    with Vesta(address, key) as owner, grpc.insecure_channel(address) as channel:
        existing = furnish(owner, files, tmp_path_factory.mktemp("pictures"))
        project = existing["vesta/Project"][0]
        yield Ground(f"http://{platform.addresses['gateway']}", channel, key, project, existing, files)
