"""Adds the layers that heads on feature maps have in common to ONNX graphs."""

from typing import Any

from vesta_training.features.onnx_graph import Writer


def add_block(writer: Writer, block: Any, flow: str) -> str:
    """Adds a `Conv2dNormActivation` with ReLU6. Returns the name of its output."""
    return writer.convolution(block[0], block[1], flow, relu6=True)


def add_depthwise(writer: Writer, module: Any, flow: str) -> str:
    """Adds a `Depthwise`. Returns the name of its output."""
    return add_block(writer, module.pointwise, add_block(writer, module.depthwise, flow))
