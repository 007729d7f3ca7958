"""A Python that cannot run Vesta is rejected before anything is downloaded, and continuous integration uses the oldest supported one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from vesta_local.setup import interpreter

ROOT = Path(__file__).resolve().parents[3]
CHECK = Path(interpreter.__file__)


@pytest.fixture
def a_python(tmp_path: Path) -> Callable[[str], str]:
    """Creates a Python that first executes these lines, for example to change its version or hide a module."""

    def make(lines: str) -> str:
        (tmp_path / "usercustomize.py").write_text("")
        (tmp_path / "sitecustomize.py").write_text(lines)
        program = tmp_path / "python3"
        # Without bytecode, which Python would not renew for lines of the same length that are written within a second.
        program.write_text(f'#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
        program.chmod(0o755)
        return str(program)

    return make


def _version(*parts: int) -> str:
    return (
        "import sys\n"
        f"class Version(tuple):\n    major, minor, micro = {parts}\n"
        f"sys.version_info = Version({(*parts, 'final', 0)})\n"
    )


WITHOUT_ENSUREPIP = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "ensurepip" else find(name, package)
"""
WITHOUT_LIBRARY = """
import ctypes
def refuse(*arguments, **named): raise OSError("no such file")
ctypes.CDLL = refuse
"""
ON_ARM = "import platform\nplatform.machine = lambda: 'aarch64'\n"


@pytest.mark.parametrize(
    ("lines", "what_works"),
    [
        (_version(3, 6, 15), "make setup PYTHON=python3.11"),
        (_version(3, 11, 1), "Vesta needs Python 3.11.2 to 3.13"),
        (_version(3, 14, 0), "Vesta needs Python 3.11.2 to 3.13"),
        (WITHOUT_ENSUREPIP, f"apt-get install python3.{sys.version_info.minor}-venv"),
        (WITHOUT_LIBRARY, f"apt-get install libpython3.{sys.version_info.minor}"),
        (ON_ARM, "Linux on x86-64"),
    ],
    ids=["old", "a little old", "new", "without ensurepip", "without its library", "on another processor"],
)
def test_setup_refuses_a_python_that_lacks_something_before_it_makes_anything(
    tmp_path: Path, a_python: Callable[[str], str], lines: str, what_works: str
) -> None:
    command = ["make", "setup", f"PYTHON={a_python(lines)}", f"VENV={tmp_path}/venv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert what_works in done.stderr
    assert not (tmp_path / "venv").exists()


def test_this_python_can_run_vesta() -> None:
    assert interpreter.problems() == []


def test_continuous_integration_takes_the_oldest_python_that_is_promised(a_python: Callable[[str], str]) -> None:
    assert _python_of_ci(a_python(_version(3, 11, 2))) != "python3"
    assert _python_of_ci(a_python(_version(3, 12, 1))) == "python3"
    assert _python_of_ci(a_python(WITHOUT_ENSUREPIP)) == "python3"
    assert _python_of_ci("/nowhere/python3") == "python3"
    assert "PYTHON=$(.ci/python)" in (ROOT / ".ci" / "run").read_text()


def _python_of_ci(candidate: str) -> str:
    return subprocess.run(
        [ROOT / ".ci" / "python", candidate], capture_output=True, text=True, check=True
    ).stdout.strip()
