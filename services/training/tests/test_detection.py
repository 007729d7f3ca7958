"""A detector is learned, exported and measured; it runs in onnxruntime as in torch, and resumes from its checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from boxed_scenes import CONCEPTS, Scenes, dependencies_of, train
from torchvision.ops import batched_nms
from vesta_common.media.boxes import box_ious
from vesta_common.media.model_input import InputFormat
from vesta_contracts.training.v1 import ModelInput
from vesta_training.errors import ExportError, TooFewLabelsError
from vesta_training.features.backbone import Backbone, load_network
from vesta_training.features.runtime import ModelRuntime
from vesta_training.models.detector_graph import OBJECTS, Selection
from vesta_training.models.export import export_backbone
from vesta_training.models.graph_layers import Calibration
from vesta_training.models.model_file import read_model
from vesta_training.progress import ProgressUpdate
from vesta_training.recipes.choices import Task
from vesta_training.recipes.recipe import Recipe, builtin_recipe
from vesta_training.tasks.assignment import Assignment, Champion, Trained
from vesta_training.tasks.detection import export as export_module
from vesta_training.tasks.detection.curve import measure_curve
from vesta_training.tasks.detection.default_boxes import choose_sizes, lay_out
from vesta_training.tasks.detection.detector import Detector
from vesta_training.tasks.detection.export import export_detector
from vesta_training.tasks.detection.network import DetectionHead

TRAIN_COUNT, COUNT = 14, 20


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(COUNT)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A small detector, which learns the scenes in seconds."""
    shipped = builtin_recipe("detection")
    assert shipped.detection is not None
    small = {
        "side_px": 128,
        "views": 3,
        "pyramid_channels": 24,
        "steps_min": 90,
        "steps_max": 90,
        "calibration_folds": 2,
    }
    return replace(shipped, detection=shipped.detection.model_copy(update=small))


@pytest.fixture(scope="module")
def assignment(scenes: Scenes, recipe: Recipe) -> Assignment:
    return Assignment(recipe=recipe, examples=scenes.examples(TRAIN_COUNT), concepts=CONCEPTS, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def trained(assignment: Assignment, scenes: Scenes, folder: Path) -> Trained:
    return train(assignment, dependencies_of(scenes, folder, "first"))


def test_a_detector_finds_the_objects_of_test_scenes(trained: Trained) -> None:
    assert trained.metrics is not None
    assert trained.metrics.mean_average_precision_50.value > 0.7
    assert trained.metrics.item_count == COUNT - TRAIN_COUNT
    assert len(trained.thresholds) == len(CONCEPTS)
    assert trained.held_out_accuracy is not None
    assert trained.held_out_accuracy.value > 0.3
    assert "mAP@50" in trained.card_markdown


def test_predictions_for_test_scenes_are_evidence_for_error_rates(trained: Trained) -> None:
    assert trained.held_out is not None
    assert len(trained.held_out.levels) == len(trained.held_out.correct) == COUNT - TRAIN_COUNT
    assert not trained.held_out.drawn_at_random


def test_the_file_declares_its_input_and_outputs(trained: Trained, backbone: Backbone) -> None:
    model = read_model(trained.onnx_path)

    assert (model.task, model.concepts, model.head) == (Task.DETECTION, CONCEPTS, None)
    assert model.thresholds == trained.thresholds
    assert model.embedding_digest == trained.embedding_digest == backbone.at(128).digest
    declared = model.signature.input
    assert (declared.width_px, declared.height_px, declared.resize) == (128, 128, ModelInput.STRETCH)
    assert [(output.name, list(output.dimensions)) for output in model.signature.outputs] == [
        ("objects", [100, 6]),
        ("embedding", [1280]),
    ]
    assert model.signature.object_selection.objects_max == 100


def test_objects_are_in_pixels_of_an_input_of_any_size(trained: Trained, scenes: Scenes) -> None:
    example = scenes.examples(TRAIN_COUNT)[TRAIN_COUNT]
    runtime = ModelRuntime(trained.onnx_path)

    for side in (128, 256):
        objects = runtime.run(scenes.pixels(example.image_sha256, InputFormat(side, side))[None], OBJECTS)[
            0, :20
        ].astype(np.float64)
        assert (box_ious(example.boxes.astype(np.float64) * side, objects[:, :4]).max(axis=1) > 0.3).all()


def test_images_of_a_batch_are_answered_as_alone(trained: Trained, scenes: Scenes) -> None:
    runtime = ModelRuntime(trained.onnx_path)
    pixels = np.stack(
        [scenes.pixels(example.image_sha256, InputFormat(128, 128)) for example in scenes.examples(0)[-4:]]
    )

    together = runtime.run_all(pixels, ["objects", "embedding"])
    alone = [runtime.run_all(one[None], ["objects", "embedding"]) for one in pixels]

    assert together[0] == pytest.approx(np.concatenate([one[0] for one in alone]), abs=1e-3)
    assert together[1] == pytest.approx(np.concatenate([one[1] for one in alone]), abs=1e-5)


def test_the_embedding_is_that_of_the_backbone_at_the_size_of_the_detector(
    trained: Trained, scenes: Scenes, backbone: Backbone, folder: Path
) -> None:
    pixels = scenes.pixels(scenes.examples(0)[0].image_sha256, InputFormat(320, 320))[None]
    alone = ModelRuntime(export_backbone(backbone.at(128), folder / "backbones"))

    assert ModelRuntime(trained.onnx_path).embed(pixels) == pytest.approx(alone.embed(pixels), abs=1e-5)


def test_an_image_passes_through_the_backbone_once(trained: Trained) -> None:
    import onnx

    graph = onnx.load(trained.onnx_path).graph
    of_colours = {tensor.name for tensor in graph.initializer if list(tensor.dims[1:2]) == [3]}

    assert len([node for node in graph.node if node.op_type == "Conv" and node.input[1] in of_colours]) == 1


def random_detector(backbone: Backbone, selection: Selection) -> tuple[torch.nn.Module, Detector]:
    torch.manual_seed(5)
    sizes = choose_sizes(np.zeros((0, 2), np.float32), 128, 2, seed=0)
    head = DetectionHead((40, 112, 320), 16, 2, 3).eval()
    for predictor in head.classes:
        predictor.pointwise.bias.data.normal_()
    calibration = Calibration((1.3, 0.7, 1.0), (0.2, -0.1, 0.0))
    detector = Detector(head, lay_out(sizes, 128), ("a", "b", "c"), selection, calibration, (0.5, 0.5, 0.5))
    return load_network(backbone), detector


def test_objects_are_those_of_torchvision_suppression(backbone: Backbone, tmp_path: Path) -> None:
    network, detector = random_detector(backbone, Selection(score_min=0.3, iou_max=0.4, objects_max=20))
    export = export_detector(network, detector, backbone, 128, tmp_path / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)

    objects = ModelRuntime(export.path).run(pixels, OBJECTS)

    with torch.inference_mode():
        maps = export_module.torch_maps(network, 128, pixels)
        all_boxes, all_scores = export_module.torch_candidates(detector.head, detector, maps)
    for rows, boxes, scores in zip(objects, all_boxes, all_scores, strict=True):
        place, number = torch.nonzero(scores > 0.3, as_tuple=True)
        kept = batched_nms(boxes[place] * 128, scores[place, number], number, 0.4)[:20]
        expected = torch.cat(
            [boxes[place[kept]] * 128, scores[place[kept], number[kept]][:, None], number[kept][:, None]], dim=1
        )
        assert len(kept)
        assert rows[: len(kept)] == pytest.approx(expected.numpy(), abs=1e-3)
        assert not rows[len(kept) :].any()


def test_standard_operators_suffice(trained: Trained) -> None:
    import onnx

    model = onnx.load(trained.onnx_path)

    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.version for entry in model.opset_import] == [18]
    assert len({tensor.name for tensor in model.graph.initializer}) == len(model.graph.initializer)


def test_a_file_that_differs_from_torch_is_rejected(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, detector = random_detector(backbone, Selection(score_min=0.3, iou_max=0.4, objects_max=20))
    monkeypatch.setattr(export_module, "DIFFERENCE_MAX", 1e-12)

    with pytest.raises(ExportError, match="differ by"):
        export_detector(network, detector, backbone, 128, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_equal_trainings_give_equal_files_and_use_cached_maps(
    trained: Trained, assignment: Assignment, scenes: Scenes, folder: Path
) -> None:
    scenes.asked.clear()

    again = train(assignment, dependencies_of(scenes, folder, "second"))

    assert again.digest == trained.digest
    tested = {example.image_sha256 for example in assignment.examples if example.split == "TEST"}
    assert {sha256 for sha256, _ in scenes.asked} == tested


def test_an_interrupted_training_resumes_with_the_same_result(
    trained: Trained, assignment: Assignment, scenes: Scenes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vesta_training.tasks.views.fit.STEPS_PER_CHECKPOINT", 20)
    dependencies = dependencies_of(scenes, folder, "third")
    steps: list[int] = []

    def stop(update: ProgressUpdate) -> None:
        if (update.phase, update.step) == ("head", 50):
            raise InterruptedError

    def follow(update: ProgressUpdate) -> None:
        if update.phase == "head" and update.step:
            steps.append(update.step)

    with pytest.raises(InterruptedError):
        train(assignment, dependencies, stop)
    resumed = train(assignment, dependencies, follow)

    assert steps[0] == 41
    assert resumed.digest == trained.digest


def test_a_challenger_is_compared_with_the_champion_in_map(
    trained: Trained, assignment: Assignment, scenes: Scenes, folder: Path
) -> None:
    champion = Champion("projects/p/models/m/versions/1", trained.onnx_path)

    again = train(replace(assignment, champion=champion), dependencies_of(scenes, folder, "fourth"))

    assert again.comparison is not None
    assert again.comparison.champion == champion.name
    assert (again.comparison.difference.low, again.comparison.difference.high) == (0, 0)
    assert again.comparison_missing == ""


def test_a_champion_of_another_task_is_rejected_with_both_named(
    assignment: Assignment, scenes: Scenes, folder: Path, backbone_path: Path
) -> None:
    champion = Champion("projects/p/models/m/versions/1", backbone_path)

    trained = train(replace(assignment, champion=champion), dependencies_of(scenes, folder, "fifth"))

    assert trained.comparison is None
    assert "task embedding" in trained.comparison_missing
    assert "task detection" in trained.comparison_missing


def test_without_a_box_there_is_nothing_to_learn(assignment: Assignment, scenes: Scenes, folder: Path) -> None:
    negatives = tuple(example for example in assignment.examples if not example.concepts)

    with pytest.raises(TooFewLabelsError, match="no item of the train split has an object"):
        train(replace(assignment, examples=negatives), dependencies_of(scenes, folder, "sixth"))


def test_few_images_are_learned_without_calibration_and_the_card_says_so(
    assignment: Assignment, scenes: Scenes, folder: Path
) -> None:
    few = (*assignment.examples[:3], replace(assignment.examples[3], concepts=("unknown",)))

    trained = train(replace(assignment, examples=few), dependencies_of(scenes, folder, "seventh"))

    assert trained.thresholds == (0.5, 0.5)
    assert trained.held_out_accuracy is None
    assert trained.metrics is None
    assert trained.excluded.unknown_concept_count == 1
    assert "not calibrated" in trained.card_markdown


def test_the_curve_of_random_labels_is_measured_in_map(
    assignment: Assignment, trained: Trained, scenes: Scenes, folder: Path
) -> None:
    detection = assignment.recipe.detection
    assert detection is not None
    quick = detection.model_copy(update={"steps_min": 20, "steps_max": 20, "curve_steps": 20, "calibration_folds": 8})
    with_curve = replace(
        assignment,
        recipe=replace(assignment.recipe, detection=quick),
        test_split_is_random=True,
    )

    phases: list[str] = []

    curve = measure_curve(
        with_curve,
        dependencies_of(scenes, folder, "eighth"),
        trained.onnx_path,
        lambda update: phases.append(update.phase),
    )

    assert [point.label_count for point in curve.points] == [10, 17]
    assert "more than 40" in curve.random_labels.reason
    assert set(phases) == {"curve"}
