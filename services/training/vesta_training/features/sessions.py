"""Opens models in onnxruntime, all with the same options, so that a graph computes the same values everywhere."""

from collections.abc import Sequence

import onnx
import onnxruntime

ONLY_CPU = ("CPUExecutionProvider",)


def open_session(model: onnx.ModelProto | bytes, providers: Sequence[str] = ONLY_CPU) -> onnxruntime.InferenceSession:
    """Opens a model. Each run is computed on the thread of its caller.

    Concurrent runs of one thread each are faster than one run of several threads, and idle threads would spin. Errors are raised and not
    logged as well.

    Args:
        providers: see `choose_providers`.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=list(providers))
