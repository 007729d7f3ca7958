"""skaffold.yaml names nothing that does not exist, and the check sees where it does."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import skaffold

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    return {**skaffold.read(), "profiles": []}  # one rendering a test


def test_all_that_it_names_exists() -> None:
    assert skaffold.faults(skaffold.read()) == []


def _release(document: Document) -> Document:
    release: Document = document["manifests"]["helm"]["releases"][0]
    return release


BROKEN: dict[str, tuple[Callable[[Document], object], str]] = {
    "image": (lambda it: it["build"]["artifacts"][0].update(image="vesta.local/vesta-connexion"), "vesta-connexion"),
    "image that is not built": (lambda it: it["build"]["artifacts"].pop(1), "vesta-datasets, which is not built"),
    "build argument": (lambda it: it["build"]["artifacts"][0]["docker"]["buildArgs"].update(IMAGES="x"), "IMAGES"),
    "other image's argument": (
        lambda it: it["build"]["artifacts"][0]["docker"]["buildArgs"].update(IMAGE="datasets"),
        "must be connection",
    ),
    "Dockerfile": (lambda it: it["build"]["artifacts"][0]["docker"].update(dockerfile="Dockerfile"), "Dockerfile"),
    "synced files": (
        lambda it: it["build"]["artifacts"][0]["sync"]["manual"][0].update(src="services/connection/none/*.py"),
        "no file matches services/connection/none",
    ),
    "chart": (lambda it: _release(it).update(chartPath="deploy/helm/vista"), "deploy/helm/vista/Chart.yaml"),
    "file of values": (
        lambda it: _release(it).update(valuesFiles=["deploy/helm/vesta/values-tiny.yaml"]),
        "values-tiny.yaml does not exist",
    ),
    "value": (lambda it: _release(it).update(setValues={"training.jobs.imagge": "x"}), "imagge"),
    "templated image": (
        lambda it: _release(it)["setValueTemplates"].update(
            {"training.jobs.image": "{{.IMAGE_FULLY_QUALIFIED_vesta_local_vesta_tainer}}"}
        ),
        "vesta_local_vesta_tainer",
    ),
    "forwarded port": (lambda it: it["portForward"][0].update(port=8081), "port 8081"),
    "patch": (
        lambda it: it.update(
            profiles=[{"name": "a", "patches": [{"op": "replace", "path": "/deploy/kubectl/0", "value": 1}]}]
        ),
        "/deploy/kubectl/0",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_exist_is_found(document: Document, name: str) -> None:
    change, told = BROKEN[name]
    broken = copy.deepcopy(document)
    change(broken)
    assert told in "\n".join(skaffold.faults(broken))
