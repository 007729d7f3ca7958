"""Pins the packages of each image, with the SHA-256 of their wheels, in the versions of requirements.lock."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from vesta_images.catalogue import COMMON, COMMON_PACKAGES, CUDA, IMAGES, REQUIREMENTS, ROOT, TORCH, third_party_of

PYTHON = (3, 11)  # of the base image, Debian 12
TOOLS = ("pip", "hatchling", "editables", "cyclonedx-bom")  # required by the builds, not part of an image
HEAD = "# Written by `make lock`: the versions of requirements.lock, each with the SHA-256 of its wheel for Python 3.11 on x86-64.\n"
_CUDA_PACKAGE = re.compile(r"(nvidia|cuda)-.+|triton")
_WITHOUT_DEPENDENCIES = ("inference-cpu", "kafka")


def write() -> None:
    """Rewrites all files.

    Raises:
        RuntimeError: this Python is not that of the base image, or pip failed; the message has the cause.
    """
    if sys.version_info[:2] != PYTHON:
        raise RuntimeError(
            f"The images have Python {PYTHON[0]}.{PYTHON[1]}, and the hashes are those of its "
            "wheels: run this with that version"
        )
    REQUIREMENTS.mkdir(exist_ok=True)
    common = resolve(third_party_of(COMMON_PACKAGES))
    _write(COMMON, common)
    _write("tools", resolve(TOOLS))
    for image in IMAGES:
        requirements = [*third_party_of(image.packages), *image.third_party]
        is_complete = image.name in _WITHOUT_DEPENDENCIES
        pins = resolve(requirements, with_dependencies=not is_complete, is_constrained=not is_complete)
        if image.packages:
            pins = {name: pin for name, pin in pins.items() if name not in common}
        if "torch" in pins:
            _write(TORCH, {"torch": pins.pop("torch")})
            _write(CUDA, {name: pins.pop(name) for name in list(pins) if _CUDA_PACKAGE.fullmatch(name)})
        _write(image.name, pins)


def resolve(
    requirements: Sequence[str], *, with_dependencies: bool = True, is_constrained: bool = True
) -> dict[str, str]:
    """Returns what pip would install into an empty environment: lines of a requirements file by normalised name.

    Raises:
        RuntimeError: pip failed; the message has the cause.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary", ":all:"]
        command += ["--quiet", "--disable-pip-version-check", "--report", str(report)]
        command += ["--constraint", str(ROOT / "requirements.lock")] if is_constrained else []
        command += [] if with_dependencies else ["--no-deps"]
        done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pip cannot resolve {', '.join(requirements)}: {done.stderr.strip()}")
        return dict(map(_pin, json.loads(report.read_text())["install"]))


def _pin(entry: Mapping[str, dict[str, dict[str, dict[str, str]]]]) -> tuple[str, str]:
    name, version = str(entry["metadata"]["name"]), str(entry["metadata"]["version"])
    digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
    return re.sub(r"[-_.]+", "-", name).lower(), f"{name}=={version} --hash=sha256:{digest}"


def _write(name: str, pins: Mapping[str, str]) -> None:
    # The name distinguishes files with the same pins: for an equal file, a builder would reuse its cache with the SBOM of another
    # image.
    lines = [f"# {name}", *(pins[key] for key in sorted(pins))]
    (REQUIREMENTS / f"{name}.txt").write_text(HEAD + "".join(f"{line}\n" for line in lines))
