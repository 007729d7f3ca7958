"""A tiny detector of the YOLOX family with random weights, as an ONNX file, and variants of it that are not accepted."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CARD = "license: Apache-2.0\nsource: a test\n"


class TinyDetector:
    """Builds the graph.

    Args:
        side_px: of its input.
        class_count: C.
        feature_count: channels of its features.
    """

    def __init__(self, side_px: int = 64, class_count: int = 3, feature_count: int = 8, seed: int = 0) -> None:
        self.side_px, self.class_count, self.feature_count = side_px, class_count, feature_count
        self._random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.input = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side_px, side_px])
        self.cells = sum((side_px // stride) ** 2 for stride in (8, 16, 32))
        flow, levels = "images", []
        for stride in (8, 16, 32):
            flow = self._features(flow, 8 if stride == 8 else 2, 3 if stride == 8 else feature_count)
            levels.append(self._level(flow, stride))
        self._node("Concat", levels, "all", axis=2)
        self._node("Transpose", ["all"], "output", perm=[0, 2, 1])
        self.outputs = [self.an_output("output", [1, self.cells, 5 + class_count])]

    @staticmethod
    def an_output(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def model(self, opset: int = 11, domains: Sequence[str] = ()) -> onnx.ModelProto:
        """Returns the model."""
        graph = helper.make_graph(self.nodes, "tiny", [self.input], self.outputs, self.tensors)
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=6)

    def content(self) -> bytes:
        """Returns the file."""
        content: bytes = self.model().SerializeToString()
        return content

    def _features(self, entry: str, stride: int, channels: int) -> str:
        name = self._convolution(entry, channels, self.feature_count, stride, scale=0.01 if entry == "images" else 0.5)
        return self._node("Relu", [name], f"{name}.relu")

    def _level(self, flow: str, stride: int) -> str:
        count = self.feature_count
        of_classes, of_boxes = (
            self._node("Relu", [self._convolution(flow, count, count)], f"tower{stride}.{kind}") for kind in "cb"
        )
        classes = self._convolution(of_classes, count, self.class_count)
        box, objectness = self._convolution(of_boxes, count, 4, scale=0.1), self._convolution(of_boxes, count, 1)
        scores = [self._node("Sigmoid", [one], f"{one}.sigmoid") for one in (objectness, classes)]
        name = self._node("Concat", [box, *scores], f"level{stride}", axis=1)
        shape = self._constant(f"shape{stride}", np.array([1, 5 + self.class_count, -1]))
        return self._node("Reshape", [name, shape], f"flat{stride}")

    def _convolution(self, entry: str, inputs: int, outputs: int, stride: int = 1, scale: float = 0.5) -> str:
        name = f"conv{len(self.nodes)}"
        weights = self._random.normal(0, scale, (outputs, inputs, stride, stride)).astype(np.float32) / stride
        bias = self._random.normal(0, 0.1, outputs).astype(np.float32)
        tensors = [self._constant(f"{name}.{kind}", value) for kind, value in (("w", weights), ("b", bias))]
        return self._node("Conv", [entry, *tensors], name, strides=[stride, stride], kernel_shape=[stride, stride])

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(value, name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output
