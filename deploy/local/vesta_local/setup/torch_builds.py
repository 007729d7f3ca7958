"""Chooses the build of torch: PyPI's build with CUDA, or a CPU build from PyTorch's index if that is reachable."""

from collections.abc import Callable
from dataclasses import dataclass

from vesta_local.setup.downloads import Pin, files_of, wheel_of

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU, CUDA = "cpu", "cuda"
_LOCAL = "+cpu"


@dataclass(frozen=True)
class Build:
    """The build of torch to install.

    Attributes:
        kind: `cpu` or `cuda`.
        constraint: pip's constraint for torch, in addition to the lock.
        index: the package index; empty for the default index.
    """

    kind: str
    constraint: str
    index: str = ""


def choose(requested: str, pin: Pin, installed: str, report: Callable[[str], None], index: str = CPU_INDEX) -> Build:
    """Returns the requested build if it is available; otherwise PyPI's build, and reports the reason.

    Args:
        requested: `cpu`, `cuda`, or empty for the installed kind (`cuda` if torch is not installed).
        pin: torch with the version of the lock.
        installed: the installed version of torch; empty if it is not installed.
    """
    cuda = Build(CUDA, f"torch==={pin.version}")  # === excludes local versions such as +cpu
    if (requested or (CPU if installed.endswith(_LOCAL) else CUDA)) == CUDA:
        return cuda
    cpu = Pin(pin.name, f"{pin.version}{_LOCAL}")
    constraint = f"torch=={cpu.version}"
    if installed == cpu.version:
        return Build(CPU, constraint)
    try:
        wheel = wheel_of(files_of(index, pin.name), cpu)
    except (OSError, ValueError, KeyError) as error:
        report(
            f"PyTorch's index of CPU builds cannot be reached ({index}: {error}); installing PyPI's torch, with CUDA, instead"
        )
        return cuda
    if wheel is None:
        report(
            f"PyTorch's index of CPU builds has no torch {cpu.version} for this Python; installing PyPI's, with CUDA, instead"
        )
        return cuda
    return Build(CPU, constraint, index)
