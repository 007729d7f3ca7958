"""The small profile on a node: it installs, its own test passes, and its pods may do what they must and nothing else."""

import os
from pathlib import Path

import pytest
from kube import Kube, Refused, until
from node_figures import Figures
from site_on_node import Site
from vesta_images import layout

pytestmark = pytest.mark.timeout(600)

GOAL_SECONDS, GOAL_GIB = 60, 1.5
IMAGE_GOAL_MB, TRAINER_GOAL_MB = 300, 1200
SERVICES = {"connection", "datasets", "annotation", "training", "serving", "pipelining", "conductor", "gateway"}
STRANGER = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
"""What a pod runs to find out whether it reaches an address."""


def test_the_small_profile_installs_and_its_own_test_passes(site: Site, figures: Figures) -> None:
    said = site.helm("test", "vesta", "--logs")

    assert "uploaded an image" in said
    assert "Succeeded" in said
    figures.at_most("helm install --wait of the small profile to helm test green", site.age(), GOAL_SECONDS, "s")


def test_every_pod_meets_the_restricted_standard_that_the_namespace_enforces(site: Site) -> None:
    labels = site.kube.get("namespace", site.kube.namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert site.are_ready()


@pytest.mark.parametrize(
    ("caller", "address", "port", "gets_through"),
    [
        ("gateway", "datasets", 9000, True),
        ("serving", "inference", 8001, True),
        ("annotation", "inference", 8001, False),
        ("annotation", "training", 9000, False),
        ("gateway", "objects", 8333, False),
        ("datasets", "gateway", 9000, False),
    ],
)
def test_a_service_reaches_what_it_calls_and_nothing_else(
    site: Site, caller: str, address: str, port: int, gets_through: bool
) -> None:
    def reaches() -> bool:
        try:
            site.run_in(caller, STRANGER, address, str(port))
        except Refused:
            return False
        return True

    assert until(lambda: reaches() == gets_through, seconds=15)


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("create", "jobs.batch", "yes"),
        ("delete", "jobs.batch", "yes"),
        ("list", "pods", "yes"),
        ("get", "secrets", "no"),
        ("delete", "pods", "no"),
        ("create", "pods", "no"),
        ("patch", "deployments.apps", "no"),
    ],
)
def test_training_may_run_jobs_and_nothing_else(site: Site, verb: str, resource: str, allowed: str) -> None:
    account = f"system:serviceaccount:{site.kube.namespace}:training"
    assert can_i(site.kube, verb, resource, account) == allowed


def test_no_other_service_may_ask_the_cluster_anything(site: Site) -> None:
    for name in ("gateway", "datasets", "serving", "default"):
        account = f"system:serviceaccount:{site.kube.namespace}:{name}"
        assert can_i(site.kube, "list", "pods", account) == "no"


def test_idle_pods_take_little_memory(site: Site, figures: Figures) -> None:
    running = {pod["metadata"]["name"] for pod in site.pods()}
    assert until(lambda: running <= site.memory().keys(), seconds=90)
    used = sum(site.memory()[name] for name in running) / 1024

    figures.at_most("memory of all pods of the small profile, idle", used, GOAL_GIB, "GiB")
    assert used < GOAL_GIB


IMAGES = os.environ.get("VESTA_TEST_CONTAINER_IMAGES", "")


@pytest.mark.skipif(not IMAGES, reason="the images are not of a folder here")
def test_images_are_small(figures: Figures) -> None:
    megabytes = {
        image.reference.rpartition("/vesta-")[2].partition(":")[0]: image.compressed_bytes / 1e6
        for image in layout.images(Path(IMAGES))
    }
    services = {name: size for name, size in megabytes.items() if name in SERVICES}
    assert services.keys() == SERVICES
    largest = max(services, key=lambda name: services[name])
    figures.at_most(f"largest image of a service, to pull ({largest})", services[largest], IMAGE_GOAL_MB, "MB")
    figures.at_most(
        "image of trainings, with torch for the processor, to pull", megabytes["trainer"], TRAINER_GOAL_MB, "MB"
    )


def can_i(kube: Kube, verb: str, resource: str, account: str) -> str:
    """`yes` or `no`, as the API server decides."""
    try:
        return kube("auth", "can-i", verb, resource, f"--as={account}").strip()
    except Refused:  # its exit code says no as well
        return "no"
