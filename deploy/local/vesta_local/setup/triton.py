"""Triton's virtual environment, `.venv-triton`, separate because it requires an older numpy than the platform."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from vesta_local.setup import interpreter
from vesta_local.setup.downloads import Pin, read_pins
from vesta_local.setup.pip_progress import run_pip

# Installed without dependencies, which Triton's Python does not import. onnxruntime has the version that training checks models with.
VERSIONS = ("numpy==1.26.4", "onnxruntime==1.32.0", "nvidia-pytriton==0.7.0")
_BACKEND = Path(__file__).parent.parent / "triton_backend" / "model.py"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def environment_folder() -> Path:
    """Returns the folder of Triton's virtual environment, next to the platform's."""
    return Path(sys.prefix).parent / ".venv-triton"


def server_folder() -> Path:
    """Returns the folder of the server's programs and backends."""
    return _site_packages() / "pytriton" / "tritonserver"


def _site_packages() -> Path:
    return environment_folder() / "lib" / f"python{_PYTHON}" / "site-packages"


def pins_to_install() -> list[Pin]:
    """Returns the packages that `set_up` will download; empty if the environment is current."""
    return [] if _is_current() else read_pins(VERSIONS)


def _is_current() -> bool:
    stamp = _stamp()
    return stamp.exists() and stamp.read_text() == _wanted()


def _stamp() -> Path:
    return environment_folder() / ".installed"


def _wanted() -> str:
    return "\n".join([*VERSIONS, _PYTHON, _BACKEND.read_text()])


def set_up(report: Callable[[str], None] = lambda _: None) -> None:
    """Creates Triton's environment, or recreates it after a change of a version or of the backend.

    Raises:
        RuntimeError: this Python lacks something that Triton needs, or pip failed; suggests a fix.
    """
    if _is_current():
        return
    if problems := interpreter.problems():
        raise RuntimeError("\n".join(problems))
    folder = environment_folder()
    report("Installing Triton for the CPU into .venv-triton …")
    _stamp().unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    # Showing progress requires a newer pip than the one that Python contains.
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"pip=={_own_pip()}"], check=True
    )
    run_pip(python, ["--no-deps", *VERSIONS], _site_packages())
    server = server_folder()
    stub = server / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    if not stub.exists():
        names = ", ".join(sorted(path.name for path in stub.parents[1].iterdir()))
        raise RuntimeError(
            f"Triton has no part for Python {_PYTHON}, only for {names}: make the environment with one of these"
        )
    shutil.copy2(stub, server / "backends" / "python" / stub.name)
    backend = server / "backends" / "onnxruntime"
    backend.mkdir(exist_ok=True)
    shutil.copy2(_BACKEND, backend / "model.py")
    _stamp().write_text(_wanted())


def _own_pip() -> str:
    return metadata.version("pip")
