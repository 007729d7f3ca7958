"""Upgrades and rollbacks under load lose nothing, one that fails is taken back, and an uninstalled site leaves its data to the next."""

from pathlib import Path

import pytest
from kube import until
from node_figures import Figures
from predictions import PREDICTIONS_PER_SECOND, Predictions, ended_loop
from site_on_node import CHART, HelmFailed, Site
from small_loop import SmallLoop
from traffic import running
from uploads import Uploads
from vesta_contracts.conductor.v1 import GetProjectRequest

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def small(site: Site, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """A loop that has spent its budget, with a deployment that answers."""
    return ended_loop(site, tmp_path_factory.mktemp("samples"), seconds=400)


def test_an_upgrade_and_a_rollback_under_load_lose_nothing(
    site: Site, small: SmallLoop, tmp_path: Path, figures: Figures
) -> None:
    predictions, uploads = Predictions(site, small), Uploads(site, small, tmp_path)
    before = {pod["metadata"]["name"] for pod in site.pods()}
    with running(predictions.ask), running(uploads.upload):
        site.upgrade("--set=log.level=warning")
        upgraded = {pod["metadata"]["name"] for pod in site.pods()}
        site.helm("rollback", "vesta", "--wait", "--timeout=300s")

    assert len(upgraded - before) >= 8  # every service runs in a new pod
    figures.none_failed(
        f"failed of {predictions.count} predictions and {len(uploads.acknowledged)} uploads during an upgrade and a rollback",
        predictions.failures + uploads.failures,
    )
    figures.at_most("lost of what was uploaded meanwhile", len(uploads.lost()), 0, "items")
    assert uploads.lost() == set()
    assert predictions.count > PREDICTIONS_PER_SECOND * 10


def test_an_upgrade_that_cannot_start_is_taken_back(site: Site, small: SmallLoop) -> None:
    with pytest.raises(HelmFailed):
        site.helm(
            "upgrade", "vesta", CHART, *site.options, "--set=image.tag=absent", "--rollback-on-failure", "--timeout=60s"
        )
    assert until(site.are_ready, seconds=120)
    small.status()


def test_what_is_uninstalled_leaves_its_data_to_the_next_installation(site: Site, small: SmallLoop) -> None:
    key = site.owner_key
    site.helm("uninstall", "vesta", "--wait")
    assert until(lambda: site.serving() == [])
    left = {
        f"{one['kind']}/{one['metadata']['name']}" for one in site.kube.get("persistentvolumeclaims,secrets")["items"]
    }
    assert {"PersistentVolumeClaim/data-postgres-0", "Secret/vesta-secrets"} <= left

    site.install()

    assert site.owner_key == key
    with site.owner() as owner:
        assert owner.projects.GetProject(GetProjectRequest(name=small.project)).name == small.project
