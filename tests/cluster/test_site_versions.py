"""An upgrade from another version of the chart and its images, and the way back, under load: `make test-cluster old=REVISION`."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import chart
import pytest
from kube import Kube, until
from node_figures import Figures
from predictions import PREDICTIONS_PER_SECOND, Predictions, ended_loop
from site_on_node import ANY_PORTS, RELEASE, Site
from small_loop import SmallLoop
from traffic import running
from uploads import Uploads
from vesta_contracts.conductor.v1 import LoopStatus

OTHER = os.environ.get("VESTA_TEST_OTHER_CHECKOUT", "")
"""The checkout of the other version, whose images have the tag `other`."""
TAG = "other"
BUNDLED = {"postgres", "objects", "kafka"}

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not OTHER, reason="which version to come from is said by `make test-cluster old=REVISION`"),
]


@pytest.fixture(scope="module")
def old(node: Kube) -> Iterator[Site]:
    """The small profile of the other version, with two pods of each service, so that both versions serve side by side for a while."""
    with node.own_namespace() as own:
        folder = f"{OTHER}/deploy/helm/vesta"
        values = (f"--values={folder}/values-small.yaml", ANY_PORTS, "--set=defaults.replicas=2")
        site = Site(own, (*values, f"--set=image.tag={TAG}"), folder)
        site.install()
        yield site


@pytest.fixture(scope="module")
def small(old: Site, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """A loop of the other version that has spent its budget, with a deployment that answers."""
    return ended_loop(old, tmp_path_factory.mktemp("samples"), seconds=500)


def test_a_version_follows_another_and_gives_way_to_it_again_and_nothing_is_lost(
    old: Site, small: SmallLoop, tmp_path: Path, figures: Figures
) -> None:
    values = (f"--values={chart.CHART}/values-small.yaml", ANY_PORTS, "--set=defaults.replicas=2")
    new = replace(old, options=values, chart=str(chart.CHART))
    predictions, uploads = Predictions(old, small), Uploads(old, small, tmp_path)
    with running(predictions.ask), running(uploads.upload):
        new.upgrade()
        upgraded = _tags(new)
        old.helm("rollback", RELEASE, "--wait", "--timeout=300s")

    failed = predictions.failures + uploads.failures
    figures.none_failed(
        f"failed of {predictions.count} predictions and {len(uploads.acknowledged)} uploads between two versions",
        failed,
    )
    assert failed == []
    assert upgraded.isdisjoint({TAG})
    assert until(lambda: _tags(old) == {TAG}, seconds=120)  # the pods of the other version still end
    assert uploads.lost() == set()
    assert predictions.count > PREDICTIONS_PER_SECOND * 10
    assert small.status().phase == LoopStatus.EXHAUSTED


def _tags(site: Site) -> set[str]:
    """Of the images of the pods of services and of Triton."""
    own = [pod for pod in site.serving() if pod["metadata"]["labels"]["app.kubernetes.io/component"] not in BUNDLED]
    return {one["image"].rpartition(":")[2] for pod in own for one in pod["spec"]["containers"]}
