"""A segmenter is learned, exported and measured; it runs in onnxruntime as in torch, and serving would predict the same maps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from boxed_scenes import CONCEPTS, Scenes, dependencies_of, train
from masked_scenes import masked_examples
from vesta_common.media.model_input import InputFormat, place
from vesta_common.media.model_signatures import OVERLAP, PRESENCE, SEGMENTATION
from vesta_common.media.segmentation_maps import map_on_image
from vesta_contracts.training.v1 import ModelInput
from vesta_training.errors import ExportError, LearningError, TooFewLabelsError
from vesta_training.features.backbone import Backbone, load_network
from vesta_training.features.onnx_graph import FINE_STRIDES
from vesta_training.features.runtime import ModelRuntime
from vesta_training.models.export import torch_maps
from vesta_training.models.graph_layers import Calibration
from vesta_training.models.model_file import read_model
from vesta_training.models.segmenter_graph import PixelCalibration
from vesta_training.recipes.choices import Task
from vesta_training.recipes.recipe import Recipe, builtin_recipe
from vesta_training.tasks.assignment import Assignment, Champion, Trained
from vesta_training.tasks.registry import training_task
from vesta_training.tasks.semantic_segmentation import export as export_module
from vesta_training.tasks.semantic_segmentation.calibrate import TEMPERATURES, temperature_losses
from vesta_training.tasks.semantic_segmentation.export import export_segmenter, torch_outputs
from vesta_training.tasks.semantic_segmentation.network import SegmentationHead
from vesta_training.tasks.semantic_segmentation.segmenter import Segmenter, Vocabulary

TRAIN_COUNT, COUNT = 12, 18


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(COUNT)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A small segmenter, which learns the scenes in seconds."""
    shipped = builtin_recipe("semantic-segmentation")
    assert shipped.segmentation is not None
    small = {"side_px": 128, "views": 3, "width": 32, "steps_min": 120, "steps_max": 120, "calibration_folds": 2}
    return replace(shipped, segmentation=shipped.segmentation.model_copy(update=small))


@pytest.fixture(scope="module")
def assignment(scenes: Scenes, recipe: Recipe) -> Assignment:
    return Assignment(recipe=recipe, examples=masked_examples(scenes, TRAIN_COUNT), concepts=CONCEPTS, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def trained(assignment: Assignment, scenes: Scenes, folder: Path) -> Trained:
    return train(assignment, dependencies_of(scenes, folder, "first"))


def test_a_segmenter_finds_the_pixels_of_test_scenes(trained: Trained) -> None:
    assert trained.metrics is not None
    assert trained.metrics.mean_iou.value > 0.7
    assert trained.metrics.item_count == COUNT - TRAIN_COUNT
    assert all(concept.iou > 0.6 for concept in trained.metrics.concepts)
    assert trained.held_out_accuracy is not None
    assert trained.held_out_accuracy.value > 0.3
    assert "mIoU" in trained.card_markdown
    assert (trained.card["fitted"]["heads"], trained.card["fitted"]["stepsPerHead"]) == (2, 120)


def test_predictions_for_test_scenes_are_evidence_for_error_rates(trained: Trained) -> None:
    assert trained.held_out is not None
    assert len(trained.held_out.levels) == len(trained.held_out.correct) == COUNT - TRAIN_COUNT
    assert sum(trained.held_out.correct) >= 4


def test_the_file_declares_its_input_and_outputs(trained: Trained, backbone: Backbone) -> None:
    model = read_model(trained.onnx_path)

    assert (model.task, model.concepts, model.head) == (Task.SEMANTIC_SEGMENTATION, CONCEPTS, None)
    assert model.thresholds == trained.thresholds
    assert model.embedding_digest == trained.embedding_digest == backbone.at(128).digest
    declared = model.signature.input
    assert (declared.width_px, declared.height_px, declared.resize) == (128, 128, ModelInput.STRETCH)
    assert [(output.name, list(output.dimensions)) for output in model.signature.outputs] == [
        ("segmentation", [0, 0]),
        ("presence", [2]),
        ("overlap", [2]),
        ("embedding", [1280]),
    ]
    assert {node.domain for node in onnx.load(trained.onnx_path).graph.node} == {""}


def test_the_map_is_in_pixels_of_an_input_of_any_size(trained: Trained, scenes: Scenes) -> None:
    example = masked_examples(scenes, TRAIN_COUNT)[TRAIN_COUNT]
    truth = example.map({concept: number for number, concept in enumerate(CONCEPTS, start=1)})
    runtime = ModelRuntime(trained.onnx_path)

    for declared in (InputFormat(128, 128), InputFormat(96, 200)):
        pixels = scenes.pixels(example.image_sha256, declared)[None]
        found, presence, overlap = (one[0] for one in runtime.run_all(pixels, [SEGMENTATION, PRESENCE, OVERLAP]))
        on_image = map_on_image(found, place(declared, example.width_px, example.height_px))
        assert found.shape == (declared.height_px, declared.width_px)
        assert (on_image == truth).mean() > 0.85
        assert ((presence >= 0) & (presence <= 1) & (overlap >= 0) & (overlap <= 1)).all()


def test_images_of_a_batch_are_answered_as_alone(trained: Trained, scenes: Scenes) -> None:
    runtime, names = ModelRuntime(trained.onnx_path), [SEGMENTATION, PRESENCE, OVERLAP, "embedding"]
    pixels = np.stack(
        [scenes.pixels(example.image_sha256, InputFormat(128, 128)) for example in scenes.examples(0)[-4:]]
    )

    together = runtime.run_all(pixels, names)
    alone = [runtime.run_all(one[None], names) for one in pixels]

    for index in range(4):
        assert together[index] == pytest.approx(np.concatenate([one[index] for one in alone]), abs=1e-3)


def random_segmenter(backbone: Backbone) -> tuple[torch.nn.Module, Segmenter]:
    torch.manual_seed(5)
    heads = tuple(SegmentationHead((24, 40, 112, 320), 16, 8, 3).eval() for _ in range(2))
    calibration = PixelCalibration(1.7, Calibration((1.3, 0.7, 1.0), (0.2, -0.1, 0.0)))
    return load_network(backbone), Segmenter(heads, Vocabulary(("a", "b", "c"), (0.5, 0.5, 0.5)), calibration, 128)


def test_the_file_agrees_with_torch(backbone: Backbone, tmp_path: Path) -> None:
    network, segmenter = random_segmenter(backbone)
    export = export_segmenter(network, segmenter, backbone, tmp_path / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)

    found, presence, overlap = ModelRuntime(export.path).run_all(pixels, [SEGMENTATION, PRESENCE, OVERLAP])

    with torch.inference_mode():
        maps = torch_maps(network, 128, pixels, FINE_STRIDES)
        _, expected_presence, expected_overlap = torch_outputs(segmenter, maps)
        logits = segmenter.logits(maps) / segmenter.calibration.temperature
        at_pixels = torch.nn.functional.interpolate(logits, size=(128, 128), mode="bilinear", align_corners=False)
    assert (found == at_pixels.argmax(dim=1).numpy()).mean() > 0.999
    assert len(np.unique(found)) > 1
    assert presence == pytest.approx(expected_presence.numpy(), abs=1e-3)
    assert overlap == pytest.approx(expected_overlap.numpy(), abs=1e-3)
    assert export.difference_max < 1e-3


def test_the_temperature_undoes_the_overconfidence_of_pixels() -> None:
    right = 2 * torch.randn(2, 4, 40, 40, generator=torch.Generator().manual_seed(0))
    shares = right.softmax(dim=1).permute(0, 2, 3, 1).reshape(-1, 4)
    classes = shares.multinomial(1, generator=torch.Generator().manual_seed(1)).reshape(2, 40, 40)

    losses = temperature_losses([(2 * right, classes)])
    halves = [temperature_losses([(2 * right[index : index + 1], classes[index : index + 1])]) for index in range(2)]

    assert TEMPERATURES[losses.argmin()] == pytest.approx(2, rel=0.1)
    assert losses == pytest.approx(halves[0] + halves[1], rel=1e-4)


def test_a_file_that_differs_from_torch_is_rejected(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, segmenter = random_segmenter(backbone)
    monkeypatch.setattr(export_module, "DIFFERENCE_MAX", 1e-12)

    with pytest.raises(ExportError, match="differ by"):
        export_segmenter(network, segmenter, backbone, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_challenger_is_compared_with_the_champion_in_miou(
    trained: Trained, assignment: Assignment, scenes: Scenes, folder: Path
) -> None:
    champion = Champion("projects/p/models/m/versions/1", trained.onnx_path)

    again = train(replace(assignment, champion=champion), dependencies_of(scenes, folder, "second"))

    assert again.digest == trained.digest
    assert again.comparison is not None
    assert again.comparison.champion_metrics.mean_iou.value == trained.metrics.mean_iou.value  # type: ignore[union-attr]
    assert (again.comparison.difference.low, again.comparison.difference.high) == (0, 0)


def test_without_a_mask_there_is_nothing_to_learn(assignment: Assignment, scenes: Scenes, folder: Path) -> None:
    negatives = tuple(example for example in assignment.examples if not example.concepts)

    with pytest.raises(TooFewLabelsError, match="no item of the train split has a mask"):
        train(replace(assignment, examples=negatives), dependencies_of(scenes, folder, "third"))


def test_a_map_has_255_concepts_at_most(assignment: Assignment, scenes: Scenes, folder: Path) -> None:
    concepts = (*CONCEPTS, *(f"c{number}" for number in range(254)))

    with pytest.raises(LearningError, match="has 256 concepts, the maximum for semantic segmentation is 255"):
        train(replace(assignment, concepts=concepts), dependencies_of(scenes, folder, "fourth"))


def test_the_curve_of_random_labels_is_measured_in_miou(
    assignment: Assignment, recipe: Recipe, trained: Trained, scenes: Scenes, folder: Path
) -> None:
    assert recipe.segmentation is not None
    quick = recipe.segmentation.model_copy(update={"curve_steps": 60})
    with_curve = replace(assignment, recipe=replace(recipe, segmentation=quick), test_split_is_random=True)
    phases: list[str] = []

    curve = training_task(recipe.task).measure_curve(
        with_curve,
        dependencies_of(scenes, folder, "fifth"),
        trained.onnx_path,
        lambda update: phases.append(update.phase),
    )

    assert [point.label_count for point in curve.points] == [10, 15]
    assert curve.points[-1].metric.value > 0.3
    assert "more than 40" in curve.random_labels.reason
    assert set(phases) == {"curve"}
