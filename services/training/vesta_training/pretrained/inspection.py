"""Validates the file of a pretrained detector in the sandbox: its structure, and what it computes."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesta_common.errors import InvalidArgument
from vesta_common.sandbox import Limits, run_in_folder

if TYPE_CHECKING:
    import onnx

BYTES_MAX = 256 * 1024 * 1024
LIMITS = Limits(memory_bytes_max=8 * 1024**3, cpu_seconds_max=120)
TIMEOUT = timedelta(minutes=5)
FILE_NAME = "detector.onnx"
DIFFERENCE_MAX = 1e-3
PROBE_SEED = 20_210_718


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the inspection of a file found: the side of its input in pixels, and its number of classes."""

    side_px: int
    class_count: int


def inspect_file(folder: Path) -> Inspected:
    """Inspects the file `FILE_NAME` in a folder of its own, in a sandbox.

    Raises:
        InvalidArgument: DETECTOR_*, as in `ImportPretrainedDetector`.
    """
    try:
        found: Inspected = run_in_folder(f"{__name__}:inspect", folder, FILE_NAME, LIMITS, TIMEOUT)
    except InvalidArgument as error:
        if error.reason != "IMAGE_TOO_EXPENSIVE":
            raise
        raise InvalidArgument(
            f"checking the file takes more than {LIMITS.cpu_seconds_max} s or too much memory; use a smaller network, such as YOLOX-Tiny",
            reason="DETECTOR_TOO_EXPENSIVE",
        ) from error
    return found


def inspect(folder: Path, name: str) -> Inspected:
    """Inspects a file. Runs in the sandbox.

    Raises:
        InvalidArgument: as `inspect_file`.
    """
    from vesta_training.pretrained.network import load_graph, read_network

    model = load_graph((folder / name).read_bytes())
    network = read_network(model)
    _check_values(model, network)
    return Inspected(network.side_px, network.class_count)


def warm_up() -> None:
    """Imports what an inspection needs, and loads the libraries, before the child loses access to files."""
    import numpy.random  # noqa: F401
    from onnx import TensorProto, checker, helper, shape_inference

    import vesta_training.pretrained.features_graph
    import vesta_training.pretrained.network  # noqa: F401

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "warm-up", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    shape_inference.infer_shapes(model)
    _run(model, "a", [1.0], ["b"])


def _check_values(model: "onnx.ModelProto", network: Any) -> None:
    """Compares the outputs of the file with those of the parts of the network that trainings use.

    Raises:
        InvalidArgument: DETECTOR_INVALID or DETECTOR_OUTPUT_UNSUPPORTED.
    """
    import numpy as np

    from vesta_training.pretrained.features_graph import PREFIX, features_graph

    shape = (2, 3, network.side_px, network.side_px)
    probe = np.random.default_rng(PROBE_SEED).integers(0, 256, shape).astype(np.float32)
    try:
        expected = _run(model, network.input, probe[:1], [network.output])[0]
        names = [PREFIX + name for level in network.levels for name in (level.objectness, level.classes)]
        parts = _run(features_graph(model, network), PREFIX + network.input, probe, names)
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(
            f"the file cannot be executed: {' '.join(str(error).split())[:300]}; check it with onnxruntime, and export it again",
            reason="DETECTOR_INVALID",
        ) from error
    if not all(np.isfinite(part).all() for part in (expected, *parts)):
        raise InvalidArgument(
            "the file computes values that are not finite; export it from weights of float32", reason="DETECTOR_INVALID"
        )
    levels = [np.concatenate(parts[index : index + 2], axis=1)[0] for index in range(0, len(parts), 2)]
    logits = np.concatenate([level.reshape(level.shape[0], -1).T for level in levels])
    wanted = (1, len(logits), logits.shape[1] + 4)
    if expected.shape != wanted:
        raise InvalidArgument(
            f"the output has the shape {expected.shape}, but {wanted} is expected: box, objectness and classes of each cell at the "
            "strides 8, 16 and 32; export the network without post-processing",
            reason="DETECTOR_OUTPUT_UNSUPPORTED",
        )
    if np.abs(expected[0, :, 4:] - 1 / (1 + np.exp(-logits.astype(np.float64)))).max() > DIFFERENCE_MAX:
        raise InvalidArgument(
            "the scores in the output are not the logistic function of the last convolutions, in the order of strides, rows and columns; "
            "export the network with its usual head",
            reason="DETECTOR_OUTPUT_UNSUPPORTED",
        )


def _run(model: "onnx.ModelProto", entry: str, values: Any, outputs: list[str]) -> list[Any]:
    import numpy as np

    from vesta_training.features.sessions import open_session

    answers: list[Any] = open_session(model).run(outputs, {entry: np.asarray(values, dtype=np.float32)})
    return answers
