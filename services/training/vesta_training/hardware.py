"""The device and the number of threads of a run."""

from collections.abc import Sequence

import joblib
from vesta_common.errors import FailedPrecondition

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
CUDA_PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"


class DeviceError(FailedPrecondition):
    """The configured device is not available."""

    default_reason = "DEVICE_MISSING"


def choose_device(requested: str, cuda_missing: str) -> str:
    """Returns `cpu` or `cuda`.

    Args:
        requested: `cpu`, `cuda`, or `auto`, which uses a GPU if available.
        cuda_missing: why CUDA is not available; empty if it is.

    Raises:
        DeviceError: CUDA is requested and not available.
    """
    if requested == CUDA and cuda_missing:
        raise DeviceError(
            f"CUDA is configured but not available: {cuda_missing}. Set VESTA_TRAINING_DEVICE to "
            "auto or cpu, or install a GPU with its driver, and a PyTorch build for CUDA"
        )
    return CPU if requested == CPU or cuda_missing else CUDA


def find_cuda() -> str:
    """Returns the reason why PyTorch cannot use CUDA; empty if it can."""
    import torch

    if torch.cuda.is_available():
        return ""
    return "PyTorch finds no GPU" if torch.version.cuda else "this PyTorch is a CPU-only build"


def choose_providers(device: str, available: Sequence[str]) -> list[str]:
    """Returns the execution providers for onnxruntime, in order of preference.

    Args:
        available: the providers of the installed onnxruntime; the CPU build has no CUDA provider.
    """
    return [CUDA_PROVIDER, CPU_PROVIDER] if device == CUDA and CUDA_PROVIDER in available else [CPU_PROVIDER]


def usable_cores() -> int:
    """Returns the number of cores that this process may use, by its CPU affinity and cgroup quota."""
    return int(joblib.cpu_count())


def thread_count(requested: int, cores: int, workers: int) -> int:
    """Returns the number of threads of a run.

    Args:
        requested: the configured number, or 0 for an equal share of the cores.
        workers: number of concurrent runs of this process.
    """
    return requested or max(1, cores // workers)
