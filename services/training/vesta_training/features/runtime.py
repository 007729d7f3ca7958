"""Runs model files with onnxruntime. All embeddings are computed this way, so that training and serving use the same features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from vesta_training.example import Array, Pixels
from vesta_training.features.onnx_graph import EMBEDDING, PIXELS
from vesta_training.features.sessions import open_session
from vesta_training.hardware import CPU, choose_providers


class ModelRuntime:
    """A loaded model file. Thread-safe: each call is computed on the thread of its caller.

    Raises:
        FileNotFoundError: the file does not exist.
    """

    def __init__(self, path: Path, device: str = CPU) -> None:
        providers = choose_providers(device, onnxruntime.get_available_providers())
        self._session = open_session(path.read_bytes(), providers)
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def embed(self, pixels: Pixels) -> Array:
        """`(N, H, W, 3)` uint8 RGB → `(N, D)` of unit length."""
        return self.run(pixels, EMBEDDING)

    def run(self, pixels: Pixels, output: str) -> Array:
        """Returns one of `outputs` for a batch of images."""
        answer: Array = self.run_all(pixels, [output])[0]
        return answer

    def run_all(self, pixels: Pixels, outputs: Sequence[str]) -> list[Any]:
        """Returns several of `outputs` for a batch of images."""
        answers: list[Any] = self._session.run(list(outputs), {PIXELS: np.ascontiguousarray(pixels)})
        return answers
