"""A pytest plugin with an API server for tests: that of KUBECONFIG, or one without a node, started once per session."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vesta_cluster import binaries
from vesta_cluster.cluster import Cluster


@pytest.fixture(scope="session")
def api_kubeconfig() -> Iterator[Path]:
    """The kubeconfig of the administrator. The test is skipped if the programs are not built."""
    if given := os.environ.get("KUBECONFIG"):
        yield Path(given)
        return
    if missing := binaries.missing([*binaries.API]):
        pytest.skip(f"{', '.join(missing)} are not built: `make kubernetes` builds them with Go 1.26")
    with tempfile.TemporaryDirectory(prefix="vesta-api-") as folder:
        cluster = Cluster(Path(folder) / "cluster", has_node=False)
        try:
            cluster.up(print)
            yield cluster.kubeconfig
        finally:
            cluster.down()
