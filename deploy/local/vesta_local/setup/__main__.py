"""`python -m vesta_local.setup [--torch cpu|cuda] | --lock` installs everything, or writes the lock file; `make` calls it.

It runs in the new virtual environment before anything of ours is installed.
"""

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vesta_local.setup import torch_builds, triton
from vesta_local.setup.downloads import (
    Pin,
    format_plan,
    index_url,
    installed_versions,
    not_installed,
    plan_downloads,
    read_pins,
)
from vesta_local.setup.lock import lock_text
from vesta_local.setup.pip_progress import run_pip

LOCK = Path("requirements.lock")
TOOLS = ("pip", "hatchling", "editables")
PACKAGES = ("libs/contracts", "libs/common", "libs/client", "deploy/admin", "deploy/cluster", "deploy/local")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs in the root of the repository; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m vesta_local.setup")
    parser.add_argument("--torch", choices=(torch_builds.CPU, torch_builds.CUDA), default="")
    parser.add_argument("--lock", action="store_true", help="write requirements.lock again instead")
    options = parser.parse_args(arguments)
    try:
        if options.lock:
            LOCK.write_text(lock_text(_freeze(), LOCK.read_text()))
        else:
            install(options.torch)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def install(torch: str) -> None:
    """Installs everything that is not installed.

    Args:
        torch: `cpu`, `cuda`, or empty to keep the installed kind.

    Raises:
        RuntimeError: pip failed; contains the reason.
    """
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(LOCK)]
    subprocess.run([*pip, *TOOLS], check=True)
    pins = read_pins(LOCK.read_text().splitlines())
    installed = installed_versions()
    torch_pin = next(pin for pin in pins if pin.name == "torch")
    build = torch_builds.choose(torch, torch_pin, installed.get("torch", ""), _say)
    _print_plan(pins, installed, torch_pin, build, is_cpu_requested=torch == torch_builds.CPU)
    packages = [*PACKAGES, *sorted(str(path.parent) for path in Path("services").glob("*/pyproject.toml"))]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraint:
        constraint.write(build.constraint + "\n")
        constraint.flush()
        given = ["--constraint", str(LOCK), "--constraint", constraint.name, "--no-build-isolation", "--group", "dev"]
        if build.index:
            given += ["--extra-index-url", build.index]
        editable = [part for package in packages for part in ("--editable", package)]
        run_pip(sys.executable, [*given, *editable], Path(sysconfig.get_path("purelib")))
    if build.kind == torch_builds.CPU:
        _remove_cuda(pins)
    triton.set_up(_say)
    (Path(sys.prefix) / ".torch").write_text(build.kind)


def _print_plan(
    pins: Sequence[Pin], installed: dict[str, str], torch_pin: Pin, build: torch_builds.Build, *, is_cpu_requested: bool
) -> None:
    """Prints what will be downloaded for both environments."""
    needed = [pin for pin in not_installed(pins, installed) if not (pin.is_cuda and build.kind == torch_builds.CPU)]
    is_other_build = installed.get("torch", "").endswith("+cpu") != (build.kind == torch_builds.CPU)
    if torch_pin not in needed and is_other_build:
        needed.append(torch_pin)
    if build.kind == torch_builds.CPU:
        needed = [Pin("torch", build.constraint.partition("==")[2]) if pin == torch_pin else pin for pin in needed]
    needed += triton.pins_to_install()
    if needed:
        default_index = index_url()
        downloads = plan_downloads(
            needed, lambda pin: build.index if build.index and pin.name == "torch" else default_index
        )
        print(format_plan(downloads, is_cpu_requested=is_cpu_requested), flush=True)


def _remove_cuda(pins: Sequence[Pin]) -> None:
    """Uninstalls the CUDA libraries of another build of torch."""
    installed = installed_versions()
    unneeded = [pin.name for pin in pins if pin.is_cuda and pin.name in installed]
    if unneeded:
        _say(f"Removing {len(unneeded)} CUDA libraries that this build of torch does not use …")
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", *unneeded], check=True)


def _freeze() -> str:
    command = [sys.executable, "-m", "pip", "freeze", "--exclude-editable", "--all"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
