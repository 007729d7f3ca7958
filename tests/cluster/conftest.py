"""A real Kubernetes for the tests of this folder: the one that KUBECONFIG names, or one that is started for them.

`make test-cluster` sets VESTA_TEST_NODE: then pods run as well, in a cluster that is left up where it was up before.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import chart
import pytest
from kube import Kube
from node_figures import KEPT, Figures
from site_on_node import ANY_PORTS, Site
from vesta_cluster import binaries
from vesta_cluster.cluster import Cluster

HAS_NODE = bool(os.environ.get("VESTA_TEST_NODE"))


@pytest.fixture(scope="session")
def kube(kubeconfig: Path) -> Kube:
    """An API server, as its administrator."""
    return Kube(binaries.ensure(["kubectl", "helm"], print) / "kubectl", kubeconfig)


if HAS_NODE and not os.environ.get("KUBECONFIG"):

    @pytest.fixture(scope="session")
    def kubeconfig(node_kubeconfig: Path) -> Path:
        """The kubeconfig of the administrator."""
        return node_kubeconfig

else:

    @pytest.fixture(scope="session")
    def kubeconfig(api_kubeconfig: Path) -> Path:
        """The kubeconfig of the administrator."""
        return api_kubeconfig


@pytest.fixture(scope="session")
def node_kubeconfig() -> Iterator[Path]:
    """Of a cluster that runs pods, with the images that were built."""
    cluster = Cluster(binaries.cache_folder() / "running")
    was_up = cluster.kubeconfig.exists()
    try:
        cluster.up(print)
        for layout in ("VESTA_TEST_CONTAINER_IMAGES", "VESTA_TEST_OTHER_IMAGES"):
            if images := os.environ.get(layout):
                cluster.load([Path(images)])
        yield cluster.kubeconfig
    finally:
        if not was_up:
            cluster.down()


@pytest.fixture(scope="session")
def restart_node(kube: Kube) -> Callable[[], None]:
    """Restarts the kubelet and the container runtime by force, where the cluster is one of this machine; another is left alone."""
    own = _own_cluster(kube)
    return lambda: own.restart("kubelet", "containerd") if own else None


@pytest.fixture(scope="session")
def empty_registry(kube: Kube) -> None:
    """Empties the registry of the cluster of this machine; that of another is to be empty."""
    if own := _own_cluster(kube):
        own.empty_registry()


def _own_cluster(kube: Kube) -> Cluster | None:
    own = Cluster(binaries.cache_folder() / "running")
    return own if kube.kubeconfig.resolve() == own.kubeconfig.resolve() else None


@pytest.fixture(scope="session")
def node(kube: Kube) -> Kube:
    """The same, where it runs pods."""
    if not HAS_NODE:
        pytest.skip("pods are run by `make test-cluster` alone")
    return kube


@pytest.fixture(scope="session")
def site(node: Kube) -> Iterator[Site]:
    """The small profile, installed in a namespace of its own; uninstalled afterwards."""
    with node.own_namespace() as own:
        values = [f"--values={chart.CHART}/values-small.yaml", ANY_PORTS]
        if given := os.environ.get("VESTA_TEST_VALUES"):  # such as the registry of the images
            values.append(f"--values={given}")
        installed = Site(own, tuple(values))
        installed.install()
        yield installed


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[Kube]:
    """The same, in a namespace of the file's own, under the restricted standard."""
    with kube.own_namespace() as own:
        yield own


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    """What is measured, printed at the end of the run."""
    return Figures(request.config.stash.setdefault(KEPT, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the figures."""
    if kept := config.stash.get(KEPT, []):
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(map(str, kept)))
