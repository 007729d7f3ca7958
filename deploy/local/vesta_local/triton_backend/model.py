"""A Python-based Triton backend for ONNX files: what the C++ `onnxruntime` backend does, where only the Python one is installed.

Triton runs this in an environment of its own; nothing of Vesta is imported here. The requests of one call are put together into one
batch, and the answer is cut again.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        threads = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value", "1")
        options.intra_op_num_threads = int(threads)
        options.inter_op_num_threads = 1
        path = (
            Path(args["model_repository"])
            / args["model_version"]
            / (config.get("default_model_filename") or "model.onnx")
        )
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [entry["name"] for entry in config["input"]]
        self._outputs = [entry["name"] for entry in config["output"]]

    def execute(self, requests):
        arrays = [
            [utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs] for request in requests
        ]
        if len({tuple(array.shape[1:] for array in group) for group in arrays}) > 1:
            return [self._answers([group])[0] for group in arrays]
        return self._answers(arrays)

    def _answers(self, arrays):
        together = [column[0] if len(column) == 1 else np.concatenate(column) for column in zip(*arrays, strict=True)]
        results = self._session.run(self._outputs, dict(zip(self._inputs, together, strict=True)))
        answers, start = [], 0
        for group in arrays:
            end = start + len(group[0])
            tensors = [
                utils.Tensor(name, result[start:end]) for name, result in zip(self._outputs, results, strict=True)
            ]
            answers.append(utils.InferenceResponse(output_tensors=tensors))
            start = end
        return answers
