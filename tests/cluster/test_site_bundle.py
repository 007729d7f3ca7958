"""The bundle of a site without a way out: loaded into an empty registry, and the platform installed from it, with nothing else at hand."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from kube import Kube
from site_on_node import ANY_PORTS, Site
from vesta_cluster.node_files import REGISTRY as OWN_REGISTRY
from vesta_common.ids import new_id
from vesta_images import bundle

pytestmark = pytest.mark.timeout(1200)

NAME = "bundle"
LAYOUT = os.environ.get("VESTA_TEST_CONTAINER_IMAGES", "")
REGISTRY = os.environ.get("VESTA_TEST_REGISTRY", OWN_REGISTRY)
"""An empty registry without TLS that this machine and the nodes reach; that of our own cluster."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in the archive that `make bundle` writes."""
    folder = tmp_path_factory.mktemp("bundle")
    archive = folder / f"{NAME}.tar"
    bundle.write(Path(LAYOUT), archive, NAME)
    for command in (["sha256sum", "--check", f"{archive.name}.sha256"], ["tar", "-xf", archive.name]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    archive.unlink()
    yield folder / NAME
    shutil.rmtree(folder)


@pytest.mark.skipif(not LAYOUT, reason="the images are not of a folder here")
@pytest.mark.usefixtures("empty_registry")
def test_the_bundle_fills_an_empty_registry_and_installs_from_it(node: Kube, unpacked: Path) -> None:
    assert repositories() == []
    target = f"{REGISTRY}/site-{new_id()[-8:].lower()}"  # a name by which no image is on the node
    with node.own_namespace() as own:
        where = [f"--namespace={own.namespace}", "--profile=small", "--install", "--", ANY_PORTS]
        done = subprocess.run(
            [sys.executable, unpacked / "vesta-install", "registry", target, "--plain-http", *where],
            env={**os.environ, "PATH": f"{own.kubectl.parent}:{os.environ['PATH']}", "KUBECONFIG": str(own.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

        site = Site(own, ())
        assert "uploaded an image" in site.helm("test", "vesta", "--logs")
        used = {
            container["image"]
            for pod in own.get("pods")["items"]
            for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
        }
        assert {image.rpartition("/")[0] for image in used} == {target}
        pulled = "\n".join(event["message"] for event in own.get("events", "--field-selector=reason=Pulled")["items"])
        assert {image for image in used if f'Successfully pulled image "{image}"' not in pulled} == set()
        assert {image.partition("/")[2].partition(":")[0] for image in used} <= {*repositories()}


def repositories() -> list[str]:
    """What the registry holds."""
    with urllib.request.urlopen(f"http://{REGISTRY}/v2/_catalog", timeout=10) as answer:
        found: list[str] = json.load(answer)["repositories"]
    return found
