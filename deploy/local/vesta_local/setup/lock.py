"""The contents of requirements.lock: the installed packages, and the CUDA libraries even with a CPU build of torch."""

from vesta_local.setup.downloads import read_pins

HEAD = "# Every version the repository installs, as pip constraints. Written by `make lock`."
_UNPINNED = "setuptools=="  # part of Python's virtual environments


def lock_text(freeze: str, before: str) -> str:
    """Returns the new lock from the output of `pip freeze` and the previous lock.

    Replaces a CPU build of torch by PyPI's build of the same version, and keeps the pins of its CUDA libraries: the lock works for both.
    """
    lines = [line.replace("+cpu", "") if line.startswith("torch==") else line for line in freeze.splitlines()]
    pinned = [line for line in lines if not line.startswith(_UNPINNED)]
    known = {pin.name for pin in read_pins(pinned)}
    if any(line.startswith("torch==") and "+cpu" in line for line in freeze.splitlines()):
        pinned += [
            f"{pin.name}=={pin.version}"
            for pin in read_pins(before.splitlines())
            if pin.is_cuda and pin.name not in known
        ]
    return "\n".join([HEAD, *sorted(pinned, key=lambda line: line.lower().encode())]) + "\n"
