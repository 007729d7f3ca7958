"""Verifies the references of skaffold.yaml: its paths, its images, the values of the chart, the forwarded ports.
`make check` runs it.
"""

import copy
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import chart
import yaml
from vesta_images.catalogue import BY_NAME, DOCKERFILE, ROOT

FILE = ROOT / "skaffold.yaml"
REGISTRY = "vesta.local"
_TEMPLATED_IMAGE = re.compile(r"IMAGE_\w+?_((?:vesta_local)_\w+)")
Document = Mapping[str, Any]


def read() -> dict[str, Any]:
    """skaffold.yaml."""
    return dict(yaml.safe_load(FILE.read_text()))


def faults(document: Document) -> list[str]:
    """Returns the references that do not exist; empty if there are none."""
    found = [fault for artifact in document["build"]["artifacts"] for fault in _faults_of_artifact(artifact)]
    for profile in (None, *document.get("profiles", ())):
        name = f"profile {profile['name']}" if profile else "without a profile"
        try:
            patched = _patched(document, profile["patches"] if profile else ())
        except LookupError as error:
            found.append(f"{name}: a patch has the path {error.args[0]}, which does not exist")
            continue
        found += [f"{name}: {fault}" for fault in _faults_of_release(patched)]
    return found


def _faults_of_artifact(artifact: Document) -> Iterator[str]:
    image, docker = artifact["image"], artifact["docker"]
    arguments, context = docker.get("buildArgs", {}), ROOT / artifact.get("context", ".")
    name = image.removeprefix(f"{REGISTRY}/vesta-")
    if name not in BY_NAME:
        yield f"{image}: unknown image; images: {', '.join(f'{REGISTRY}/vesta-{known}' for known in BY_NAME)}"
    if arguments.get("IMAGE") != name:
        yield f"{image}: its build argument IMAGE is {arguments.get('IMAGE')}, and must be {name}"
    if (context / docker["dockerfile"]).resolve() != DOCKERFILE:
        yield f"{image}: {docker['dockerfile']} is not the Dockerfile of the platform"
    known = set(re.findall(r"^ARG (\w+)", DOCKERFILE.read_text(), re.MULTILINE))
    yield from (f"{image}: the Dockerfile has no argument {argument}" for argument in sorted(set(arguments) - known))
    for rule in artifact.get("sync", {}).get("manual", ()):
        if not any(context.glob(rule["src"])):
            yield f"{image}: no file matches {rule['src']}"
        if not rule["src"].startswith(rule["strip"]):
            yield f"{image}: {rule['src']} does not start with {rule['strip']}"


def _faults_of_release(document: Document) -> Iterator[str]:
    images = {artifact["image"] for artifact in document["build"]["artifacts"]}
    for release in document["manifests"]["helm"]["releases"]:
        files = [ROOT / file for file in release.get("valuesFiles", ())]
        absent = [path for path in (ROOT / release["chartPath"] / "Chart.yaml", *files) if not path.is_file()]
        if absent:
            yield from (f"{path.relative_to(ROOT)} does not exist" for path in absent)
            continue
        templates = release.get("setValueTemplates", {})
        known = {re.sub(r"\W", "_", image) for image in images}
        for value, template in templates.items():
            named = _TEMPLATED_IMAGE.findall(template)
            yield from (f"{value}: no image {name} is built" for name in named if name not in known)
        values = {**release.get("setValues", {}), **dict.fromkeys(templates, f"{REGISTRY}/an-image:1")}
        options = [part for file in files for part in ("--values", str(file))]
        options += [part for value, content in values.items() for part in ("--set", f"{value}={content}")]
        try:
            manifests = _rendered(*options)
        except chart.ChartError as error:
            yield str(error)
            continue
        running = [container["image"] for _, spec in chart.pod_specs(manifests) for container in chart.containers(spec)]
        wanted = {image.rpartition(":")[0] for image in running}
        ours = {image for image in wanted if image.startswith(f"{REGISTRY}/vesta-")}
        yield from (f"the chart runs {image}, which is not built" for image in sorted(ours - images))
        yield from _faults_of_ports(document.get("portForward", ()), manifests)


@cache
def _rendered(*options: str) -> list[dict[str, Any]]:
    return chart.manifests(options=options)


def _faults_of_ports(forwarded: Sequence[Document], manifests: Sequence[Document]) -> Iterator[str]:
    services = {it["metadata"]["name"]: it["spec"].get("ports", ()) for it in manifests if it["kind"] == "Service"}
    for it in forwarded:
        ports = [port["port"] for port in services.get(it["resourceName"], ())]
        if it["port"] not in ports:
            yield f"portForward: no Service {it['resourceName']} has a port {it['port']}"


def _patched(document: Document, patches: Sequence[Document]) -> Document:
    """Returns the document with the JSON patches `add` and `replace` applied.

    Raises:
        LookupError: the path of a patch does not exist; has the path.
    """
    patched = copy.deepcopy(dict(document))
    for patch in patches:
        *parents, last = patch["path"].strip("/").split("/")
        place: Any = patched
        try:
            for key in parents:
                place = place[int(key) if isinstance(place, list) else key]
            if last == "-":
                place.append(patch["value"])
                continue
            where: Any = int(last) if isinstance(place, list) else last
            if patch["op"] == "replace":
                place[where]  # must exist
            place[where] = patch["value"]
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            raise LookupError(patch["path"]) from error
    return patched


def main() -> int:
    """Returns 1 if there are problems."""
    found = faults(read())
    print("\n".join(f"{Path(FILE).name}: {fault}" for fault in found) or "Success: skaffold.yaml names what exists")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
