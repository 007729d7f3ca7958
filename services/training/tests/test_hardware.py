"""Runs use the requested device or fail with a clear error, and use no more threads than cores."""

import os

import pytest
from vesta_training.errors import LearningError
from vesta_training.hardware import DeviceError, choose_device, choose_providers, thread_count, usable_cores
from vesta_training.settings import Settings

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("asked", "cuda_missing", "device"),
    [
        ("auto", "", "cuda"),
        ("auto", "PyTorch finds no GPU", "cpu"),
        ("cpu", "", "cpu"),
        ("cpu", "PyTorch finds no GPU", "cpu"),
        ("cuda", "", "cuda"),
    ],
)
def test_a_gpu_is_used_if_available_and_allowed(asked: str, cuda_missing: str, device: str) -> None:
    assert choose_device(asked, cuda_missing) == device


def test_a_missing_gpu_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(DeviceError, match=r"PyTorch finds no GPU.*VESTA_TRAINING_DEVICE") as refused:
        choose_device("cuda", "PyTorch finds no GPU")
    assert refused.value.reason == "DEVICE_MISSING"
    assert not isinstance(refused.value, LearningError)


@pytest.mark.parametrize(
    ("device", "available", "providers"),
    [
        ("cpu", [CUDA, CPU], [CPU]),
        ("cuda", [CUDA, CPU], [CUDA, CPU]),
        ("cuda", [CPU], [CPU]),
        ("cpu", [CPU], [CPU]),
    ],
)
def test_embeddings_are_computed_on_the_gpu_if_onnxruntime_supports_it(
    device: str, available: list[str], providers: list[str]
) -> None:
    assert choose_providers(device, available) == providers


@pytest.mark.parametrize(
    ("asked", "cores", "workers", "threads"),
    [(0, 2, 1, 2), (0, 16, 1, 16), (0, 16, 3, 5), (0, 1, 1, 1), (0, 2, 4, 1), (3, 16, 1, 3), (8, 2, 1, 8)],
)
def test_runs_share_the_cores_unless_a_number_is_configured(asked: int, cores: int, workers: int, threads: int) -> None:
    assert thread_count(asked, cores, workers) == threads


def test_only_usable_cores_count() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() <= len(before)


@pytest.mark.parametrize("device", ["gpu", "cuda:7", ""])
def test_an_unknown_device_is_rejected(device: str) -> None:
    with pytest.raises(ValueError, match="'auto', 'cpu' or 'cuda'"):
        Settings(
            postgres_url="postgresql://x/y",
            datasets_address="d:1",
            serving_address="s:1",
            work_folder="/",
            device=device,
        )  # type: ignore[call-arg,arg-type]
