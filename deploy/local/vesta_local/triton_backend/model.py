"""A Python-based Triton backend for ONNX files: what the C++ `onnxruntime` backend does, where only the Python one is installed.

Triton runs this in an environment of its own; nothing of Vesta is imported here. The requests of one call whose shapes are equal are
run as one batch, and the answer is cut again; what is wrong with a request is answered to that request alone.
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
        """Opens the file of the version that Triton names; one thread an instance unless the configuration says otherwise."""
        config = json.loads(args["model_config"])
        threads = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value", "1")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads)
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it would keep a block of memory for each size of batch seen
        name = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / name
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [entry["name"] for entry in config["input"]]
        self._outputs = [entry["name"] for entry in config["output"]]
        self._batches = config["max_batch_size"] > 0

    def execute(self, requests):
        """Answers each request, in their order."""
        responses = [None] * len(requests)
        for positions, batch in self._alike(requests):
            try:
                answers = self._run(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, these requests get it as their answer
                # an answer of its own for each: Triton frees every one
                answers = [utils.InferenceResponse([], utils.TritonError(str(error))) for _ in batch]
            for position, answer in zip(positions, answers, strict=True):
                responses[position] = answer
        return responses

    def _alike(self, requests):
        """The requests' arrays, those of equal shapes together, each with its position."""
        groups = defaultdict(list)
        for position, request in enumerate(requests):
            arrays = [utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs]
            shapes = tuple(array.shape[1:] for array in arrays) if self._batches else position
            groups[shapes].append((position, arrays))
        return [tuple(zip(*group, strict=True)) for group in groups.values()]

    def _run(self, batch):
        """One run for all; row slices of its results, which copy nothing, for each."""
        together = [column[0] if len(batch) == 1 else np.concatenate(column) for column in zip(*batch, strict=True)]
        results = self._session.run(self._outputs, dict(zip(self._inputs, together, strict=True)))
        if len(batch) == 1:
            return [self._response(results)]
        ends = np.cumsum([len(arrays[0]) for arrays in batch])[:-1]
        return [self._response(parts) for parts in zip(*(np.split(result, ends) for result in results), strict=True)]

    def _response(self, results):
        pairs = zip(self._outputs, results, strict=True)
        return utils.InferenceResponse([utils.Tensor(name, result) for name, result in pairs])
