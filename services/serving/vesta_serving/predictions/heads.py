"""Runs the head of a model separately: from stored embeddings to probabilities, without reading the images again.

Models whose embeddings have the same digest differ only in the head. After a change of model, a dataset is therefore scored in seconds
instead of the minutes that the backbone takes.
"""

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vesta_common.storage.objects import ObjectStore

from vesta_serving.registry import Version

EMBEDDING, PROBABILITIES = "embedding", "probabilities"
HEADS_MAX = 32


class Head:
    """The part of a model after its embedding, run in numpy.

    Args:
        model: an ONNX ModelProto with the input `embedding` `(N, D)` and the output `probabilities` `(N, C)`, both float32.
    """

    def __init__(self, model: Any) -> None:
        from onnx.reference import ReferenceEvaluator  # a heavy import, needed only for scoring datasets

        self._evaluator = ReferenceEvaluator(model)

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns `(N, C)` probabilities for `(N, D)` embeddings."""
        (found,) = self._evaluator.run([PROBABILITIES], {EMBEDDING: embeddings})
        return np.asarray(found, np.float32)


class Heads:
    """Loads heads by model version, with a least-recently-used cache. Not thread-safe.

    Args:
        models: the object store of the registry's ONNX files.
    """

    def __init__(self, models: ObjectStore) -> None:
        self._models = models
        self._known: OrderedDict[str, Head | None] = OrderedDict()

    def find(self, version: Version) -> Head | None:
        """Returns a version's head; None if its probabilities depend on more than its embedding.

        Raises:
            DataLoss, NotFound: the model's file differs from the registered one, or is missing.
        """
        digest = version.model.digest
        if digest not in self._known:
            self._known[digest] = cut_head(self._models.get(version.model.onnx_key, sha256=digest))
            if len(self._known) > HEADS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(digest)
        return self._known[digest]


def cut_head(onnx_file: bytes) -> Head | None:
    """Extracts the head from a model's ONNX file; None if there is none, or if it has inputs other than the embedding."""
    import onnx

    model = onnx.load_model_from_string(onnx_file)
    graph = model.graph
    inputs = {output: list(node.input) for node in graph.node for output in node.output}
    inputs |= {constant.name: [] for constant in graph.initializer}
    used: set[str] = set()
    wanted = [PROBABILITIES]
    while wanted:
        name = wanted.pop()
        if name in used or name in ("", EMBEDDING):
            continue
        if name not in inputs:
            return None  # the name is the image input, or is not defined in the file
        used.add(name)
        wanted.extend(inputs[name])
    head = onnx.helper.make_graph(
        [node for node in graph.node if used.intersection(node.output)],
        "head",
        [onnx.helper.make_tensor_value_info(EMBEDDING, onnx.TensorProto.FLOAT, None)],
        [onnx.helper.make_tensor_value_info(PROBABILITIES, onnx.TensorProto.FLOAT, None)],
        [one for one in graph.initializer if one.name in used],
    )
    return Head(onnx.helper.make_model(head, opset_imports=model.opset_import, ir_version=model.ir_version))
