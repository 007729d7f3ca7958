"""Which build of torch is installed: PyPI's, which brings CUDA, or one for the CPU from PyTorch's own index, where that can be reached."""

from collections.abc import Callable
from dataclasses import dataclass

from vesta_local.setup.downloads import Pin, files_of, wheel_of

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU, CUDA = "cpu", "cuda"
_LOCAL = "+cpu"


@dataclass(frozen=True)
class Build:
    """The build that is going to be installed.

    Attributes:
        kind: `cpu` or `cuda`.
        constraint: what pip is told of torch beside the lock.
        index: where it comes from; empty for the index of everything else.
    """

    kind: str
    constraint: str
    index: str = ""


def choose(wanted: str, pin: Pin, installed: str, say: Callable[[str], None], index: str = CPU_INDEX) -> Build:
    """The build that is wanted, where it can be had; else PyPI's, and it is said why.

    Args:
        wanted: `cpu`, `cuda`, or empty for the kind that is installed, at first `cuda`.
        pin: torch in the version that the lock names.
        installed: the version of torch that is installed; empty without one.
    """
    cuda = Build(CUDA, f"torch==={pin.version}")  # three: PyPI's very build, not one of the same version for the CPU
    if (wanted or (CPU if installed.endswith(_LOCAL) else CUDA)) == CUDA:
        return cuda
    cpu = Pin(pin.name, f"{pin.version}{_LOCAL}")
    constraint = f"torch=={cpu.version}"
    if installed == cpu.version:
        return Build(CPU, constraint)
    try:
        found = wheel_of(files_of(index, pin.name), cpu)
    except (OSError, ValueError, KeyError) as error:
        say(
            f"PyTorch's index of CPU builds cannot be reached ({index}: {error}); installing PyPI's torch, with CUDA, instead"
        )
        return cuda
    if found is None:
        say(
            f"PyTorch's index of CPU builds has no torch {cpu.version} for this Python; installing PyPI's, with CUDA, instead"
        )
        return cuda
    return Build(CPU, constraint, index)
