"""What a run computes on: a device, and as many threads as there are cores for it."""

from collections.abc import Sequence

import joblib
from vesta_common.errors import FailedPrecondition

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
CUDA_PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"


class DeviceError(FailedPrecondition):
    """The device that the settings ask for is not there."""

    default_reason = "DEVICE_MISSING"


def choose_device(asked: str, cuda_missing: str) -> str:
    """`cpu` or `cuda`.

    Args:
        asked: `auto`, which takes a GPU where there is one, `cpu` or `cuda`.
        cuda_missing: why CUDA cannot be used; empty where it can.

    Raises:
        DeviceError: CUDA is asked for and missing.
    """
    if asked == CUDA and cuda_missing:
        raise DeviceError(
            f"the settings ask for CUDA, which cannot be used: {cuda_missing}. Let VESTA_TRAINING_DEVICE be auto or cpu, or give "
            "this machine a GPU with its driver, and a PyTorch that is built for CUDA"
        )
    return CPU if asked == CPU or cuda_missing else CUDA


def find_cuda() -> str:
    """Why PyTorch cannot use CUDA here; empty where it can."""
    import torch

    if torch.cuda.is_available():
        return ""
    return "PyTorch finds no GPU" if torch.version.cuda else "this PyTorch is built for the CPU alone"


def choose_providers(device: str, available: Sequence[str]) -> list[str]:
    """The providers of onnxruntime to embed with, the first one that works is taken.

    Args:
        available: those of the installed onnxruntime; the build for the CPU has no CUDA.
    """
    return [CUDA_PROVIDER, CPU_PROVIDER] if device == CUDA and CUDA_PROVIDER in available else [CPU_PROVIDER]


def usable_cores() -> int:
    """Cores that this process may use, by its affinity and the quota of its control group."""
    return int(joblib.cpu_count())


def thread_count(asked: int, cores: int, workers: int) -> int:
    """Threads of one run.

    Args:
        asked: a number, or 0 for a fair share of the cores.
        workers: runs that are trained here at the same time.
    """
    return asked or max(1, cores // workers)
