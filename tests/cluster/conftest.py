"""A real Kubernetes for the tests of this folder: the one that KUBECONFIG names, or one that is started for them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kube import Kube
from vesta_cluster import binaries
from vesta_cluster.cluster import Cluster


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """An API server, as its administrator."""
    if given := os.environ.get("KUBECONFIG"):
        folder = binaries.ensure(["kubectl"], print)
        yield Kube(folder / "kubectl", Path(given))
        return
    if absent := binaries.missing([*binaries.API]):
        pytest.skip(f"{', '.join(absent)} are not built: make kubernetes builds them where there is Go 1.26")
    with tempfile.TemporaryDirectory(prefix="vesta-api-") as folder:
        cluster = Cluster(Path(folder) / "cluster", has_node=False)
        try:
            cluster.up(print)
            yield Kube(binaries.folder() / "kubectl", cluster.kubeconfig)
        finally:
            cluster.down()


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[Kube]:
    """The same, in a namespace of the file's own, under the restricted standard."""
    with kube.own_namespace() as own:
        yield own
