"""Runs a model file: the only way from pixels to embeddings, so that what a head learned on is what will be served."""

from pathlib import Path

import numpy as np
import onnxruntime

from vesta_training.example import Array, Pixels
from vesta_training.features.onnx_graph import EMBEDDING, PIXELS
from vesta_training.hardware import CPU, choose_providers


class ModelRuntime:
    """A loaded model file. May be called from several threads at once: each call computes on its caller's thread.

    Raises:
        FileNotFoundError: the file is gone.
    """

    def __init__(self, path: Path, device: str = CPU) -> None:
        options = onnxruntime.SessionOptions()
        # Several calls at one thread each beat one call at several threads, and idle threads must not spin.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers = choose_providers(device, onnxruntime.get_available_providers())
        self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def embed(self, pixels: Pixels) -> Array:
        """`(N, H, W, 3)` uint8 RGB → `(N, D)` of length 1."""
        return self.run(pixels, EMBEDDING)

    def run(self, pixels: Pixels, output: str) -> Array:
        """One of `outputs` for a batch of images."""
        answer: Array = self._session.run([output], {PIXELS: np.ascontiguousarray(pixels)})[0]
        return answer
