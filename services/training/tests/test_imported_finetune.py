"""An imported network is trained as a whole: in torch it computes what its graph computes, and its weights are written back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from boxed_scenes import CONCEPTS, Scenes, dependencies_of
from onnx import helper
from tiny_detector import TinyDetector
from vesta_training.errors import ExportError
from vesta_training.features.backbone import Backbone
from vesta_training.features.onnx_graph import PIXELS, STRIDES
from vesta_training.models.export import probe_pixels
from vesta_training.models.imported_graph import ImportedNetwork, imported_maps_graph, load_network
from vesta_training.models.model_file import read_model
from vesta_training.progress import Reporter, ignore_progress
from vesta_training.recipes.recipe import builtin_recipe
from vesta_training.tasks.assignment import Assignment, Pretrained
from vesta_training.tasks.detection.boxed_view import BoxedView
from vesta_training.tasks.detection.finetuning.learn import Parts, learn_finetuned
from vesta_training.tasks.detection.imported import tunable as tunable_module
from vesta_training.tasks.detection.imported.loss import imported_sums
from vesta_training.tasks.detection.imported.trainable import TrainableNetwork, untrainable_operators
from vesta_training.tasks.detection.starts import starts_of

SIDE_PX, TRAIN_COUNT, COUNT = 64, 12, 14


def imported(folder: Path, detector: TinyDetector, *, reverses_colours: bool = True) -> ImportedNetwork:
    path = folder / "tiny.onnx"
    path.write_bytes(detector.content())
    return load_network(path, reverses_colours=reverses_colours)


def maps_of(network: ImportedNetwork, pixels: np.ndarray) -> list[np.ndarray]:
    graph = imported_maps_graph(network, exact=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run([f"stride{stride}" for stride in STRIDES], {PIXELS: pixels})
    return found


def images_of(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("reverses_colours", [True, False])
def test_torch_computes_what_the_graph_computes(tmp_path: Path, reverses_colours: bool) -> None:
    network = imported(tmp_path, TinyDetector(SIDE_PX), reverses_colours=reverses_colours)
    pixels = probe_pixels()[:, :SIDE_PX, :SIDE_PX]

    with torch.inference_mode():
        found = TrainableNetwork(network)(images_of(pixels))

    assert untrainable_operators(network) == []
    for one, expected in zip(found, maps_of(network, pixels), strict=True):
        assert one.numpy() == pytest.approx(expected, abs=1e-3)


def test_changed_weights_are_written_to_the_graph(tmp_path: Path) -> None:
    network = imported(tmp_path, TinyDetector(SIDE_PX))
    trained = TrainableNetwork(network)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.01).add_(0.01)
    pixels = probe_pixels()[:, :SIDE_PX, :SIDE_PX]

    written = trained.written_to(network)

    with torch.inference_mode():
        for one, after, before in zip(
            trained(images_of(pixels)), maps_of(written, pixels), maps_of(network, pixels), strict=True
        ):
            assert one.numpy() == pytest.approx(after, abs=1e-3)
            assert np.abs(after - before).max() > 0.1


def test_a_network_with_other_operators_is_not_trained(tmp_path: Path) -> None:
    detector = TinyDetector(SIDE_PX)
    first = next(node for node in detector.nodes if node.op_type == "Relu")
    first.CopyFrom(helper.make_node("HardSigmoid", list(first.input), list(first.output)))

    assert untrainable_operators(imported(tmp_path, detector)) == ["HardSigmoid"]


def test_the_loss_of_boxes_moves_the_cells_that_learn_an_object() -> None:
    boxes = torch.tensor([[[0.1, 0.1, 0.4, 0.4], [0.7, 0.7, 0.9, 0.9]]], requires_grad=True)
    view = BoxedView("", np.array([[0.1, 0.1, 0.5, 0.5]], np.float32), np.array([0]))
    outputs = (torch.zeros(1, 2, 1), boxes)

    frozen = imported_sums(outputs, [view], trains_boxes=False)
    learned = imported_sums(outputs, [view], trains_boxes=True)
    learned.total.backward()  # type: ignore[no-untyped-call]

    assert learned.objects == frozen.objects
    assert learned.total > frozen.total
    assert boxes.grad is not None
    assert (boxes.grad[0, 0, 2:] < 0).all()
    assert not boxes.grad[0, 1].any()


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    shipped = builtin_recipe("detection-finetune")
    assert shipped.detection is not None
    assert shipped.detection_finetune is not None
    head = {"side_px": 128, "views": 2, "pyramid_channels": 16, "steps_min": 30, "steps_max": 30}
    tuning = {"epochs": 1, "batch_size": 4}
    recipe = replace(
        shipped,
        detection=shipped.detection.model_copy(update=head),
        detection_finetune=shipped.detection_finetune.model_copy(update=tuning),
    )
    path = tmp_path / "tiny.onnx"
    path.write_bytes(TinyDetector(SIDE_PX).content())
    name = "projects/acme/pretrainedDetectors/tiny"
    return Assignment(
        recipe=recipe,
        concepts=CONCEPTS,
        seed=3,
        pretrained=Pretrained(name, path, "d" * 64, "Apache-2.0", "a test", "BGR"),
    )


def test_the_better_start_is_tuned_and_exported_with_its_weights(
    assignment: Assignment, tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = Scenes(COUNT)
    examples = scenes.examples(COUNT)
    dependencies = dependencies_of(scenes, tmp_path, "run")
    report = Reporter(ignore_progress, lambda: 0.0, {})
    parts = Parts(examples[:TRAIN_COUNT], examples[TRAIN_COUNT:])
    _, imported_start = starts_of(assignment, dependencies, report, backbone, examples)

    start, learned = learn_finetuned([imported_start], parts, assignment, dependencies, report, "")
    export = start.export(learned.detector, tmp_path / "model.onnx")

    model = read_model(export.path)
    figures: Any = learned.facts["starts"]
    assert export.difference_max <= 1e-3
    assert (model.signature.input.height_px, model.concepts) == (SIDE_PX, CONCEPTS)
    assert [(one["start"], one["chosen"]) for one in figures] == [("projects/acme/pretrainedDetectors/tiny", True)]
    monkeypatch.setattr(tunable_module, "DIFFERENCE_MAX", -1.0)
    with pytest.raises(ExportError, match="the maps of the exported file differ"):
        start.export(learned.detector, tmp_path / "other.onnx")


def test_a_start_that_cannot_be_tuned_is_left_out_with_its_reason(
    assignment: Assignment, tmp_path: Path, backbone: Backbone
) -> None:
    scenes = Scenes(COUNT)
    examples = scenes.examples(COUNT)
    report = Reporter(ignore_progress, lambda: 0.0, {})
    dependencies = dependencies_of(scenes, tmp_path, "run")
    packaged, other = starts_of(assignment, dependencies, report, backbone, examples)
    starts = [packaged, replace(other, untunable="tiny cannot be fine-tuned")]

    start, learned = learn_finetuned(
        starts, Parts(examples[:TRAIN_COUNT], examples[TRAIN_COUNT:]), assignment, dependencies, report, ""
    )

    assert start.name == packaged.name
    assert learned.facts["startMissingReason"] == "tiny cannot be fine-tuned"
