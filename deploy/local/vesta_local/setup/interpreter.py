"""Checks that this Python can run Vesta, before anything is downloaded. Any Python 3 can run this file and report what is missing.

`python interpreter.py` exits with 1 if something is missing, and suggests a fix. With `--is-oldest` it exits with 1 unless this is a usable
Python of the oldest supported minor version, according to the README.
"""

import ctypes
import importlib.util
import os
import platform
import sys
import sysconfig

OLDEST = (3, 11, 2)
NEWEST = (3, 13)  # Triton's wheel does not support later versions
_MACHINE = "x86_64"


def problems():
    # type: () -> list[str]
    """Returns what this Python lacks, each with a suggested fix; empty if it can run Vesta."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    supported = "%d.%d.%d to %d.%d" % (OLDEST + NEWEST)
    minor = "%d.%d" % sys.version_info[:2]
    if sys.platform != "linux" or platform.machine() != _MACHINE:
        return ["Vesta runs on Linux on x86-64; this is %s on %s" % (sys.platform, platform.machine())]
    if sys.version_info[:3] < OLDEST or sys.version_info[:2] > NEWEST:
        return [
            "Vesta needs Python %s; %s is Python %s: name another one, such as `make setup PYTHON=python3.11`"
            % (supported, sys.executable, version)
        ]
    missing = []
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        missing.append(
            "Python %s at %s cannot make virtual environments: `apt-get install python%s-venv` brings what is missing"
            % (version, sys.executable, minor)
        )
    if not has_shared_library():
        missing.append(
            "Triton needs libpython%s.so.1.0, which %s lacks: `apt-get install libpython%s` brings it, or a Python from uv or conda has it"
            % (minor, sys.executable, minor)
        )
    return missing


def library_folder():
    # type: () -> str
    """Returns the folder of this Python's shared library, if it has one."""
    return str(sysconfig.get_config_var("LIBDIR"))


def has_shared_library():
    # type: () -> bool
    """Whether this Python's shared library can be loaded. Some distributions package it separately."""
    name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
    for candidate in (name, os.path.join(library_folder(), name)):
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return True
    return False


def main():
    # type: () -> int
    """Returns the exit status."""
    faults = problems()
    for problem in faults:
        sys.stderr.write(problem + "\n")
    if "--is-oldest" in sys.argv and sys.version_info[:2] != OLDEST[:2]:
        return 1
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
