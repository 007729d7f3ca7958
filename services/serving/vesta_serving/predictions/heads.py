"""The head of a model by itself: from the embeddings that items bear already to probabilities, without looking at pictures again.

Models whose embedding has the same digest share all but the head. So a dataset is scored anew in seconds after a change of model, and not
in the minutes that the backbone takes.
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
    """What of a model comes after its embedding, run in numpy.

    Args:
        model: an ONNX ModelProto with the input `embedding` `(N, D)` and the output `probabilities` `(N, C)`, both float32.
    """

    def __init__(self, model: Any) -> None:
        from onnx.reference import ReferenceEvaluator  # only who scores datasets pays for it

        self._evaluator = ReferenceEvaluator(model)

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """`(N, C)` for `(N, D)`."""
        (found,) = self._evaluator.run([PROBABILITIES], {EMBEDDING: embeddings})
        return np.asarray(found, np.float32)


class Heads:
    """Heads by version, the last used ones remembered. Used by one thread.

    Args:
        models: where the registry's ONNX files lie.
    """

    def __init__(self, models: ObjectStore) -> None:
        self._models = models
        self._known: OrderedDict[str, Head | None] = OrderedDict()

    def find(self, version: Version) -> Head | None:
        """A version's head; None where its probabilities do not follow from its embedding alone.

        Raises:
            DataLoss, NotFound: the model's file is not what was registered.
        """
        digest = version.model.digest
        if digest not in self._known:
            self._known[digest] = cut_head(self._models.get(version.model.onnx_key, sha256=digest))
            if len(self._known) > HEADS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(digest)
        return self._known[digest]


def cut_head(onnx_file: bytes) -> Head | None:
    """The head of a model's ONNX file; None where it has none, or one that looks at more than the embedding."""
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
            return None  # it is the picture, or nothing that the file has
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
