"""Triton's own virtual environment, `.venv-triton`: it wants an older numpy than the rest of the platform."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from vesta_local.setup import interpreter
from vesta_local.setup.downloads import Pin, read_pins
from vesta_local.setup.pip_progress import run_pip

# Each is installed alone: what they name as dependencies Triton's Python does not import. onnxruntime is the one that training checks with.
VERSIONS = ("numpy==1.26.4", "onnxruntime==1.32.0", "nvidia-pytriton==0.7.0")
_BACKEND = Path(__file__).parent.parent / "triton_backend" / "model.py"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def environment_folder() -> Path:
    """Triton's own virtual environment, beside ours."""
    return Path(sys.prefix).parent / ".venv-triton"


def server_folder() -> Path:
    """Where the server's programs and backends lie in it."""
    return _site_packages() / "pytriton" / "tritonserver"


def _site_packages() -> Path:
    return environment_folder() / "lib" / f"python{_PYTHON}" / "site-packages"


def pins_to_install() -> list[Pin]:
    """What `set_up` will download; nothing where the environment is as it should be."""
    return [] if _is_current() else read_pins(VERSIONS)


def _is_current() -> bool:
    stamp = _stamp()
    return stamp.exists() and stamp.read_text() == _wanted()


def _stamp() -> Path:
    return environment_folder() / ".installed"


def _wanted() -> str:
    return "\n".join([*VERSIONS, _PYTHON, _BACKEND.read_text()])


def set_up(say: Callable[[str], None] = lambda _: None) -> None:
    """Makes Triton's environment, once; a change of a version or of our backend makes it anew.

    Raises:
        RuntimeError: this Python lacks what Triton needs, or pip fails; says what would work.
    """
    if _is_current():
        return
    if found := interpreter.problems():
        raise RuntimeError("\n".join(found))
    folder = environment_folder()
    say("Installing Triton for the CPU into .venv-triton …")
    _stamp().unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    # What showing progress takes is not in the pip that Python brings along.
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"pip=={_own_pip()}"], check=True
    )
    run_pip(python, ["--no-deps", *VERSIONS], _site_packages())
    server = server_folder()
    stub = server / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    if not stub.exists():
        there = ", ".join(sorted(path.name for path in stub.parents[1].iterdir()))
        raise RuntimeError(
            f"Triton has no part for Python {_PYTHON}, only for {there}: make the environment with one of these"
        )
    shutil.copy2(stub, server / "backends" / "python" / stub.name)
    backend = server / "backends" / "onnxruntime"
    backend.mkdir(exist_ok=True)
    shutil.copy2(_BACKEND, backend / "model.py")
    _stamp().write_text(_wanted())


def _own_pip() -> str:
    return metadata.version("pip")
