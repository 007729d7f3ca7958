"""Adds the layers that heads on feature maps have in common to ONNX graphs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vesta_training.features.onnx_graph import Writer

PROBABILITY_MIN = 1e-6


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibrated scores: `sigmoid(slope · logit + shift)`, with one slope and one shift per concept (Platt scaling)."""

    slopes: tuple[float, ...]
    shifts: tuple[float, ...]


def add_block(writer: Writer, block: Any, flow: str) -> str:
    """Adds a `Conv2dNormActivation` with ReLU6. Returns the name of its output."""
    return writer.convolution(block[0], block[1], flow, relu6=True)


def add_depthwise(writer: Writer, module: Any, flow: str) -> str:
    """Adds a `Depthwise`. Returns the name of its output."""
    return add_block(writer, module.pointwise, add_block(writer, module.depthwise, flow))


def add_doubling(writer: Writer, flow: str) -> str:
    """Adds the enlargement of maps `(N, C, H, W)` to twice their height and width, by repeating cells. Returns the name of its output."""
    twice = writer.constant("twice", np.array([1, 1, 2, 2], dtype=np.float32))
    return writer.node(
        "Resize",
        [flow, "", twice],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def add_calibration(writer: Writer, shares: str, calibration: Calibration, output: str) -> str:
    """Adds the calibrated scores of probabilities `(…, C)`."""
    low = writer.constant("probability_min", np.array(PROBABILITY_MIN, dtype=np.float32))
    high = writer.constant("probability_max", np.array(1 - PROBABILITY_MIN, dtype=np.float32))
    shares = writer.node("Clip", [shares, low, high])
    one = writer.constant("one", np.array(1, dtype=np.float32))
    odds = writer.node("Log", [writer.node("Div", [shares, writer.node("Sub", [one, shares])])])
    odds = writer.node("Mul", [odds, writer.constant("slopes", np.array(calibration.slopes, dtype=np.float32))])
    odds = writer.node("Add", [odds, writer.constant("shifts", np.array(calibration.shifts, dtype=np.float32))])
    return writer.node("Sigmoid", [odds], output=output)
