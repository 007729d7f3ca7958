"""A detector starts from an imported network: its head, its loss, its model file, and the choice of the better start."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from boxed_scenes import CONCEPTS, Scenes, dependencies_of
from hypothesis import given
from hypothesis import strategies as st
from tiny_detector import TinyDetector
from vesta_common.media.model_input import InputFormat, place
from vesta_contracts.training.v1 import Estimate, ModelInput
from vesta_training.errors import ExportError
from vesta_training.example import Array
from vesta_training.features.backbone import Backbone
from vesta_training.features.onnx_graph import STRIDES
from vesta_training.features.runtime import ModelRuntime
from vesta_training.models.detector_graph import OBJECTS
from vesta_training.models.graph_layers import Calibration
from vesta_training.models.model_file import read_model
from vesta_training.progress import Reporter, ignore_progress
from vesta_training.recipes.recipe import Recipe, builtin_recipe
from vesta_training.tasks.assignment import Assignment, Dependencies, Pretrained
from vesta_training.tasks.detection.boxed_view import BoxedView
from vesta_training.tasks.detection.detector import find_with_file
from vesta_training.tasks.detection.imported import export as export_module
from vesta_training.tasks.detection.imported.head import ImportedHead, cells_of
from vesta_training.tasks.detection.imported.learn import ImportedLearner, in_letterbox
from vesta_training.tasks.detection.imported.loss import imported_loss
from vesta_training.tasks.detection.learn import HeldOut, Learned
from vesta_training.tasks.detection.starts import PACKAGED, Start, learn_from_better, start_of, starts_of
from vesta_training.tasks.registry import training_task
from vesta_training.tasks.views.parallel_fits import ParallelFits, parallel_fits

TRAIN_COUNT, COUNT = 8, 10
SIDE_PX = 128


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(COUNT)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    shipped = builtin_recipe("detection")
    assert shipped.detection is not None
    small = {"side_px": 128, "views": 2, "pyramid_channels": 16, "steps_min": 20, "steps_max": 20}
    return replace(shipped, detection=shipped.detection.model_copy(update={**small, "calibration_folds": 2}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def pretrained(folder: Path) -> Pretrained:
    path = folder / "tiny.onnx"
    path.write_bytes(TinyDetector(SIDE_PX).content())
    return Pretrained("projects/acme/pretrainedDetectors/tiny", path, "d" * 64, "Apache-2.0", "a test", "BGR")


@pytest.fixture(scope="module")
def assignment(scenes: Scenes, recipe: Recipe, pretrained: Pretrained) -> Assignment:
    return Assignment(
        recipe=recipe, examples=scenes.examples(TRAIN_COUNT), concepts=CONCEPTS, seed=3, pretrained=pretrained
    )


@pytest.fixture(scope="module")
def dependencies(scenes: Scenes, folder: Path) -> Dependencies:
    return dependencies_of(scenes, folder, "run")


@pytest.fixture(scope="module")
def start(assignment: Assignment, dependencies: Dependencies, backbone: Backbone) -> Start:
    report = Reporter(ignore_progress, lambda: 0.0, {})
    packaged, imported = starts_of(assignment, dependencies, report, backbone, assignment.examples[:TRAIN_COUNT])  # type: ignore[arg-type]
    assert packaged.name == PACKAGED
    return imported


def test_the_exported_file_finds_what_the_learner_finds(
    start: Start, assignment: Assignment, dependencies: Dependencies, folder: Path
) -> None:
    examples: Any = assignment.examples[:TRAIN_COUNT]
    assert isinstance(start.learner, ImportedLearner)
    calibration = Calibration(slopes=(1.2, 0.8), shifts=(0.3, -0.2))
    detector = start.learner.fit(examples, 20, "export").calibrated(calibration, (0.4, 0.6))
    export = start.export(detector, folder / "exported.onnx")
    assert export.difference_max <= export_module.DIFFERENCE_MAX
    model = read_model(export.path)
    declared = model.signature.input
    assert (declared.height_px, declared.width_px, declared.resize) == (SIDE_PX, SIDE_PX, ModelInput.LETTERBOX)
    assert [output.name for output in model.signature.outputs] == ["objects", "embedding"]
    assert model.thresholds == (0.4, 0.6)
    stretched = replace(start, learner=replace(start.learner, views=replace(start.learner.views, resize="stretch")))
    assert start_of([stretched, start], model) is start
    onnx.checker.check_model(onnx.load(export.path), full_check=True)
    whole = find_with_file(export.path, model, examples, dependencies, model.concepts).found
    maps = start.learner.maps
    cached = detector.find(examples, [start.learner.views.whole(example) for example in examples], maps)
    for one, other in zip(whole, cached, strict=True):
        assert len(one.scores) == len(other.scores) > 0
        np.testing.assert_allclose(one.scores[:5], other.scores[:5], atol=0.01)  # maps are cached in float16


def test_pixels_of_another_size_give_boxes_in_their_frame(start: Start, assignment: Assignment, folder: Path) -> None:
    many = Calibration(slopes=(1.0, 1.0), shifts=(5.0, 5.0))
    detector = start.learner.fit(assignment.examples[:4], 2, "sizes").calibrated(many, (0.5, 0.5))  # type: ignore[arg-type]
    runtime = ModelRuntime(start.export(detector, folder / "sizes.onnx").path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    small = runtime.run(pixels, OBJECTS)
    large = runtime.run(np.repeat(np.repeat(pixels, 2, axis=1), 2, axis=2), OBJECTS)
    assert small.shape == large.shape
    assert large[..., 2].max() > SIDE_PX >= small[..., 2].max() > SIDE_PX / 2


def test_an_export_that_differs_is_rejected(
    start: Start, assignment: Assignment, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = start.learner.fit(assignment.examples[:4], 2, "differs")  # type: ignore[arg-type]
    monkeypatch.setattr(export_module, "PROBABILITY_MIN", 0.3)
    with pytest.raises(ExportError, match="differ"):
        start.export(detector, folder / "differs.onnx")


def test_a_training_compares_both_starts_in_its_card(
    assignment: Assignment, dependencies: Dependencies, pretrained: Pretrained
) -> None:
    trained = training_task(assignment.recipe.task).train(assignment, dependencies, lambda _: None)
    packaged, imported = trained.card["fitted"]["starts"]
    assert (packaged["start"], imported["start"]) == (PACKAGED, pretrained.name)
    assert imported["license"] == "Apache-2.0"
    assert [one["chosen"] for one in (packaged, imported)].count(True) == 1
    best = max((packaged, imported), key=lambda one: one["heldOutMeanPrecision50"])
    assert best["chosen"]
    assert trained.held_out_accuracy is not None
    assert trained.held_out_accuracy.value == best["heldOutMeanPrecision50"]
    assert f"| {pretrained.name} |" in trained.card_markdown
    assert trained.embedding_digest == read_model(trained.onnx_path).embedding_digest


def test_without_an_imported_detector_only_the_packaged_backbone_is_tried(
    assignment: Assignment, dependencies: Dependencies, backbone: Backbone
) -> None:
    report = Reporter(ignore_progress, lambda: 0.0, {})
    alone = replace(assignment, pretrained=None)
    starts = starts_of(alone, dependencies, report, backbone, assignment.examples[:2])  # type: ignore[arg-type]
    assert [start.name for start in starts] == [PACKAGED]


@dataclass(frozen=True)
class FixedLearner:
    """A fake learner with a fixed result."""

    figure: float | None

    def start_folds(self, examples: Any, fits: ParallelFits) -> list[Future[Any]]:
        return []

    def start_model(self, examples: Any, fits: ParallelFits) -> "Future[float | None]":
        return fits.start(1, lambda _: self.figure)

    def hold_out(self, examples: Any, folds: Sequence[Future[Any]]) -> HeldOut:
        estimate = None if self.figure is None else Estimate(value=self.figure)
        return HeldOut(Calibration((1.0,), (0.0,)), (0.5,), estimate, "")

    def learned(self, examples: Any, model: "Future[float | None]", held_out: HeldOut) -> Learned:
        assert model.result() == self.figure
        return Learned(None, {}, held_out.mean_precision, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("figures", "chosen"), [((0.5, 0.6), 1), ((0.6, 0.5), 0), ((0.5, 0.5), 0), ((None, None), 0), ((0.4,), 0)]
)
def test_the_start_with_the_better_figure_is_chosen(
    figures: tuple[float | None, ...], chosen: int, dependencies: Dependencies
) -> None:
    starts = [Start(str(number), FixedLearner(one), None, None, {}) for number, one in enumerate(figures)]  # type: ignore[arg-type]
    with parallel_fits(dependencies, ignore_progress) as fits:
        start, learned = learn_from_better(starts, [], "it was deleted", fits)
    assert start.name == str(chosen)
    assert [one["chosen"] for one in learned.facts["starts"]].index(True) == chosen
    assert learned.facts["startMissingReason"] == "it was deleted"


@given(
    st.integers(16, 4000),
    st.integers(16, 4000),
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
)
def test_boxes_in_a_letterbox_return_to_the_image(width_px: int, height_px: int, values: list[float]) -> None:
    x_min, x_max = sorted(values[:2])
    y_min, y_max = sorted(values[2:])
    boxes = np.array([[x_min, y_min, x_max, y_max]], dtype=np.float32)
    placed = in_letterbox(boxes, SIDE_PX, width_px, height_px)
    assert ((placed >= -1e-6) & (placed <= 1 + 1e-6)).all()
    back = place(InputFormat(SIDE_PX, SIDE_PX, "letterbox"), width_px, height_px).on_image(placed * SIDE_PX)
    expected = boxes * np.array([width_px, height_px] * 2)
    np.testing.assert_allclose(back, expected, atol=1e-3 * max(width_px, height_px))


def known_of(classes: int = 3, features: int = 4) -> list[tuple[Array, Array]]:
    generator = np.random.default_rng(0)
    return [
        (
            generator.normal(size=(classes, features)).astype(np.float32),
            generator.normal(size=classes).astype(np.float32),
        )
        for _ in STRIDES
    ]


def maps_of(head_features: int = 4, fill: Callable[[tuple[int, ...]], Array] = np.zeros) -> list[torch.Tensor]:
    shapes = [(1, head_features + 5, SIDE_PX // stride, SIDE_PX // stride) for stride in STRIDES]
    return [torch.from_numpy(np.asarray(fill(shape), dtype=np.float32)) for shape in shapes]


def test_boxes_are_decoded_from_the_corner_of_their_cell() -> None:
    head = ImportedHead(known_of(), SIDE_PX, width=8, concept_count=2)
    _, boxes = head(maps_of())
    corners, _ = cells_of(SIDE_PX)
    assert boxes.shape == (1, len(corners), 4) == (1, 16 * 16 + 8 * 8 + 4 * 4, 4)
    centre = boxes[0, 17]  # the second cell of the second row at stride 8, with logarithms of 0
    np.testing.assert_allclose(centre.numpy() * SIDE_PX, [4, 4, 12, 12], atol=1e-5)


def test_the_known_classes_are_not_learned() -> None:
    head = ImportedHead(known_of(), SIDE_PX, width=8, concept_count=2)
    assert all(not value.requires_grad for value in head.known.parameters())
    assert all(value.requires_grad for value in head.shared.parameters())


def test_the_loss_falls_where_the_overlapping_cell_has_the_score_of_its_overlap() -> None:
    corners, _ = cells_of(SIDE_PX)
    boxes = torch.zeros(1, len(corners), 4)
    boxes[0, 5] = torch.tensor([0.1, 0.1, 0.5, 0.5])
    view = BoxedView("k", np.array([[0.1, 0.1, 0.5, 0.5]], np.float32), np.array([1]))
    low = torch.full((1, len(corners), 2), -6.0)
    right, wrong = low.clone(), low.clone()
    right[0, 5, 1], wrong[0, 5, 0] = 6.0, 6.0
    values = [float(imported_loss((logits, boxes), [view])) for logits in (right, low, wrong)]
    assert values == sorted(values)
    assert values[0] < 0.1 < values[1]


def test_images_without_objects_lower_all_scores() -> None:
    logits = torch.zeros(1, 336, 2, requires_grad=True)
    empty = BoxedView("k", np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    imported_loss((logits, torch.zeros(1, 336, 4)), [empty]).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad > 0).all()
