"""A Python-based Triton backend for ONNX files, a substitute for the C++ `onnxruntime` backend where only the Python backend is installed.

Triton runs it in a separate environment without Vesta's packages. Requests of one call with equal shapes run as one batch, and the
results are split again. An invalid request fails alone.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args):
        """Loads the model file. Uses one thread per instance unless the configuration sets another number."""
        config = json.loads(args["model_config"])
        threads = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value", "1")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads)
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # otherwise it keeps a block of memory for each batch size
        name = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / name
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [entry["name"] for entry in config["input"]]
        self._outputs = [entry["name"] for entry in config["output"]]
        self._batches = config["max_batch_size"] > 0

    def execute(self, requests):
        """Returns one response per request, in order."""
        responses = [None] * len(requests)
        for positions, batch in self._alike(requests):
            try:
                answers = self._run(batch)
            except Exception as error:  # noqa: BLE001 - any error becomes the response of these requests
                # One object per response, because Triton frees each of them.
                answers = [utils.InferenceResponse([], utils.TritonError(str(error))) for _ in batch]
            for position, answer in zip(positions, answers, strict=True):
                responses[position] = answer
        return responses

    def _alike(self, requests):
        """Groups the requests' arrays by shape, each with its position."""
        groups = defaultdict(list)
        for position, request in enumerate(requests):
            arrays = [utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs]
            shapes = tuple(array.shape[1:] for array in arrays) if self._batches else position
            groups[shapes].append((position, arrays))
        return [tuple(zip(*group, strict=True)) for group in groups.values()]

    def _run(self, batch):
        """Runs a batch; returns one response per request, with views of the results instead of copies."""
        together = [column[0] if len(batch) == 1 else np.concatenate(column) for column in zip(*batch, strict=True)]
        results = self._session.run(self._outputs, dict(zip(self._inputs, together, strict=True)))
        if len(batch) == 1:
            return [self._response(results)]
        ends = np.cumsum([len(arrays[0]) for arrays in batch])[:-1]
        return [self._response(parts) for parts in zip(*(np.split(result, ends) for result in results), strict=True)]

    def _response(self, results):
        pairs = zip(self._outputs, results, strict=True)
        return utils.InferenceResponse([utils.Tensor(name, result) for name, result in pairs])
