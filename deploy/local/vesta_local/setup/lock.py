"""The text of requirements.lock: what is installed, and the CUDA libraries also where torch is built for the CPU."""

from vesta_local.setup.downloads import read_pins

HEAD = "# Every version the repository installs, as pip constraints. Written by `make lock`."
_UNPINNED = "setuptools=="  # Python's own virtual environments bring it along


def lock_text(freeze: str, before: str) -> str:
    """The lock, from what `pip freeze` says and from the lock as it was.

    A build of torch for the CPU is written in the version of PyPI's, whose CUDA libraries keep their pins: the lock serves both.
    """
    lines = [line.replace("+cpu", "") if line.startswith("torch==") else line for line in freeze.splitlines()]
    kept = [line for line in lines if not line.startswith(_UNPINNED)]
    known = {pin.name for pin in read_pins(kept)}
    if any(line.startswith("torch==") and "+cpu" in line for line in freeze.splitlines()):
        kept += [
            f"{pin.name}=={pin.version}"
            for pin in read_pins(before.splitlines())
            if pin.is_cuda and pin.name not in known
        ]
    return "\n".join([HEAD, *sorted(kept, key=lambda line: line.lower().encode())]) + "\n"
