"""Builds the wheels for customers, the SDK and its contracts, into `dist/`. The gateway serves them."""

import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "dist"
PACKAGES = (ROOT / "libs" / "contracts", ROOT / "libs" / "client")


def build_missing(report: Callable[[str], None] = lambda _: None, folder: Path = FOLDER) -> None:
    """Builds wheels that are missing or older than their sources.

    Raises:
        RuntimeError: a build failed; contains the reason.
    """
    old = [package for package in PACKAGES if _is_old(package, folder)]
    if old:
        report(f"building the wheels of {' and '.join(package.name for package in old)} …")
        build(old, folder)


def build(packages: tuple[Path, ...] | list[Path] = PACKAGES, folder: Path = FOLDER) -> list[Path]:
    """Builds the wheels of these packages into the folder, atomically; deletes wheels of other versions. Returns the files.

    Raises:
        RuntimeError: a build failed; contains the reason.
    """
    folder.mkdir(exist_ok=True)
    built = []
    for package in packages:
        with TemporaryDirectory(dir=folder, prefix=".draft-") as draft:
            command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", draft]
            done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the wheel of {package} cannot be built: {done.stderr.strip()}")
            (wheel,) = Path(draft).glob("*.whl")
            name = wheel.name.partition("-")[0]
            for other in folder.glob(f"{name}-*.whl"):
                if other.name != wheel.name:
                    other.unlink(missing_ok=True)
            built.append(wheel.replace(folder / wheel.name))
    return built


def _is_old(package: Path, folder: Path) -> bool:
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    wheels = list(folder.glob(f"{project['name'].replace('-', '_')}-{project['version']}-*.whl"))
    return not wheels or max(wheel.stat().st_mtime for wheel in wheels) < max(_times(package))


def _times(package: Path) -> Iterator[float]:
    """Yields the modification time of each file of a package, without tests, which are not part of the wheel."""
    for path in (package / "pyproject.toml", *package.glob("vesta*/**/*")):
        if path.is_file() and path.suffix != ".pyc":
            yield path.stat().st_mtime
