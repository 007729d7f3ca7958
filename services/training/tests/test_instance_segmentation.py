"""Masks of objects are learned with their boxes, exported and measured; they run in onnxruntime as in torch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from boxed_scenes import CONCEPTS, HEIGHT_PX, WIDTH_PX, Scenes, dependencies_of, train
from masked_scenes import edges
from vesta_common.media.box_masks import mask_ious
from vesta_common.media.mask_runs import Edges, area, bounds_of, mask_of
from vesta_common.media.model_input import InputFormat
from vesta_contracts.common.v1 import Annotation, ImageLabel, PixelBox, PixelPoint, Polygon, Ring, RotatedBox, TaskType
from vesta_contracts.datasets.v1 import AnnotationList
from vesta_training.errors import ExportError, TooFewLabelsError
from vesta_training.example import Split
from vesta_training.features.backbone import Backbone, load_network
from vesta_training.features.runtime import ModelRuntime
from vesta_training.models.detector_graph import OBJECTS, Selection
from vesta_training.models.graph_layers import Calibration
from vesta_training.models.mask_graph import MASKS
from vesta_training.models.model_file import read_model
from vesta_training.recipes.choices import Task
from vesta_training.recipes.recipe import Recipe, builtin_recipe
from vesta_training.recipes.task_types import model_task_type_of
from vesta_training.tasks.assignment import Assignment, Champion, Trained
from vesta_training.tasks.detection import export as export_module
from vesta_training.tasks.detection.default_boxes import choose_sizes, lay_out
from vesta_training.tasks.detection.detector import Detector
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.export import export_detector, torch_masks
from vesta_training.tasks.detection.mask_head import MaskHead
from vesta_training.tasks.detection.mask_targets import mask_targets
from vesta_training.tasks.detection.network import DetectionHead
from vesta_training.tasks.instance_segmentation.examples import read_masked
from vesta_training.tasks.views.views import WHOLE, View, view_boxes

TRAIN_COUNT, COUNT = 14, 20
NO_NUMBERS = np.zeros(0, np.int64)


def masked(example: BoxedExample) -> BoxedExample:
    """A scene with the pixels of its squares and discs."""
    down, across = np.mgrid[:HEIGHT_PX, :WIDTH_PX] + 0.5
    masks = []
    for box, concept in zip(example.boxes * np.array([WIDTH_PX, HEIGHT_PX] * 2), example.box_concepts, strict=True):
        x, y = (across - (box[0] + box[2]) / 2) / (box[2] - box[0]), (down - (box[1] + box[3]) / 2) / (box[3] - box[1])
        masks.append(edges((np.maximum(abs(x), abs(y)) < 0.5) if concept == "square" else (x**2 + y**2 < 0.25)))
    return replace(example, masks=tuple(masks))


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(COUNT)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A small detector with masks, which learns the scenes in seconds."""
    shipped = builtin_recipe("instance-segmentation")
    assert shipped.detection is not None
    small = {
        "side_px": 128,
        "views": 2,
        "pyramid_channels": 24,
        "steps_min": 90,
        "steps_max": 90,
        "calibration_folds": 2,
    }
    return replace(shipped, detection=shipped.detection.model_copy(update=small))


@pytest.fixture(scope="module")
def assignment(scenes: Scenes, recipe: Recipe) -> Assignment:
    examples = tuple(masked(example) for example in scenes.examples(TRAIN_COUNT))
    return Assignment(recipe=recipe, examples=examples, concepts=CONCEPTS, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def trained(assignment: Assignment, scenes: Scenes, folder: Path) -> Trained:
    return train(assignment, dependencies_of(scenes, folder, "first"))


def test_masks_of_test_scenes_are_found(trained: Trained) -> None:
    assert trained.metrics is not None
    assert trained.metrics.mean_average_precision_50.value > 0.6
    assert trained.metrics.object_count == 3 * (COUNT - TRAIN_COUNT - 1)
    assert trained.held_out_accuracy is not None
    assert trained.held_out is not None
    assert len(trained.held_out.correct) == COUNT - TRAIN_COUNT


def test_the_file_declares_its_masks(trained: Trained) -> None:
    model = read_model(trained.onnx_path)

    assert (model.task, trained.task) == (Task.INSTANCE_SEGMENTATION, Task.INSTANCE_SEGMENTATION)
    assert model_task_type_of(model.task) == TaskType.TASK_TYPE_INSTANCE_SEGMENTATION
    assert [(output.name, list(output.dimensions)) for output in model.signature.outputs] == [
        ("objects", [100, 6]),
        ("masks", [100, 28, 28]),
        ("embedding", [1280]),
    ]
    assert {node.domain for node in onnx.load(trained.onnx_path).graph.node} == {""}


def test_images_of_a_batch_are_answered_as_alone(trained: Trained, scenes: Scenes) -> None:
    runtime, names = ModelRuntime(trained.onnx_path), [OBJECTS, MASKS]
    pixels = np.stack([scenes.pixels(one.image_sha256, InputFormat(128, 128)) for one in scenes.examples(0)[-3:]])

    together = runtime.run_all(pixels, names)
    alone = [runtime.run_all(one[None], names) for one in pixels]

    assert together[0] == pytest.approx(np.concatenate([one[0] for one in alone]), abs=1e-3)
    assert together[1] == pytest.approx(np.concatenate([one[1] for one in alone]), abs=1e-3)


def test_a_challenger_is_compared_with_the_champion_by_masks(
    trained: Trained, assignment: Assignment, scenes: Scenes, folder: Path
) -> None:
    champion = Champion("projects/p/models/m/versions/1", trained.onnx_path)

    # In the folder of the first run, whose fits are complete.
    again = train(replace(assignment, champion=champion), dependencies_of(scenes, folder, "first"))

    assert again.digest == trained.digest
    assert again.comparison is not None
    assert (again.comparison.difference.low, again.comparison.difference.high) == (0, 0)


def test_without_an_object_there_is_nothing_to_learn(assignment: Assignment, scenes: Scenes, folder: Path) -> None:
    negatives = tuple(example for example in assignment.examples if not example.concepts)

    with pytest.raises(TooFewLabelsError, match="no item of the train split has an object"):
        train(replace(assignment, examples=negatives), dependencies_of(scenes, folder, "third"))


@pytest.mark.parametrize("concept_count", [1, 3])
def test_masks_of_the_file_are_those_of_torch(backbone: Backbone, tmp_path: Path, concept_count: int) -> None:
    network, detector = a_detector(backbone, concept_count)
    export = export_detector(network, detector, backbone, 128, tmp_path / "model.onnx", Task.INSTANCE_SEGMENTATION)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)

    objects, masks = ModelRuntime(export.path).run_all(pixels, [OBJECTS, MASKS])

    with torch.inference_mode():
        expected = torch_masks(detector.head, export_module.torch_maps(network, 128, pixels), objects, 128, 128)
    assert (objects[..., 4] > 0).sum() > 10
    assert masks == pytest.approx(expected, abs=1e-3)
    assert np.ptp(masks[0, 0]) > 0.01
    assert not masks[objects[..., 4] == 0].any()


def test_an_image_without_objects_has_no_masks(backbone: Backbone, tmp_path: Path) -> None:
    network, detector = a_detector(backbone, 1, score_min=0.999)
    export = export_detector(network, detector, backbone, 128, tmp_path / "model.onnx", Task.INSTANCE_SEGMENTATION)

    objects, masks = ModelRuntime(export.path).run_all(np.zeros((2, 128, 128, 3), np.uint8), [OBJECTS, MASKS])

    assert not objects.any()
    assert not masks.any()


def test_a_file_whose_masks_differ_from_torch_is_rejected(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, detector = a_detector(backbone, 1)
    monkeypatch.setattr(export_module, "torch_masks", lambda *_: np.full((4, 20, 28, 28), 0.5, np.float32))

    with pytest.raises(ExportError, match="differ by"):
        export_detector(network, detector, backbone, 128, tmp_path / "model.onnx", Task.INSTANCE_SEGMENTATION)


def a_detector(backbone: Backbone, masks: int, score_min: float = 0.3) -> tuple[torch.nn.Module, Detector]:
    """A random detector with a mask head."""
    torch.manual_seed(5)
    head = DetectionHead((40, 112, 320), 16, 2, 3, MaskHead(16, 2, masks)).eval()
    for predictor in head.classes:
        predictor.pointwise.bias.data.normal_()
    assert head.masks is not None
    for layer in (head.masks.enlarge, head.masks.masks):  # so that probabilities are not all close to 0.5
        layer.weight.data.mul_(20)
    defaults = lay_out(choose_sizes(np.zeros((0, 2), np.float32), 128, 2, seed=0), 128)
    calibration = Calibration((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    selection = Selection(score_min=score_min, iou_max=0.4, objects_max=20)
    return load_network(backbone), Detector(head, defaults, ("a", "b", "c"), selection, calibration, (0.5,) * 3)


def a_row(*annotations: Annotation) -> dict[str, object]:
    return {
        "name": "items/1",
        "sha256": "a" * 64,
        "width_px": 40,
        "height_px": 20,
        "split": "TRAIN",
        "annotations": AnnotationList(annotations=annotations).SerializeToString(),
        "control": False,
        "accept_time": 1,
    }


def a_polygon(concept: str, *points: tuple[float, float]) -> Annotation:
    outline = Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in points])
    return Annotation(concept=concept, polygon=Polygon(outline=outline))


def rectangle(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = (20, 40)) -> Edges:
    inside = np.zeros(size, np.bool_)
    inside[top:bottom, left:right] = True
    return edges(inside)


def test_polygons_and_masks_become_objects_with_the_boxes_around_their_pixels() -> None:
    mask = Annotation(concept="cat", mask=mask_of(rectangle(10, 5, 30, 15), 20, 40))
    triangle = a_polygon("dog", (0, 0), (20, 0), (0, 20))

    (example,), others = read_masked(iter([a_row(mask, triangle)]))

    assert others == 0
    assert (example.box_concepts, example.concepts) == (("cat", "dog"), ("cat", "dog"))
    assert example.masks is not None
    assert [area(one) for one in example.masks] == [200, 190]
    assert example.boxes == pytest.approx(np.array([[0.25, 0.25, 0.75, 0.75], [0, 0, 0.475, 0.95]]))


def test_rotated_boxes_become_objects_beside_other_areas() -> None:
    mask = Annotation(concept="cat", mask=mask_of(rectangle(10, 5, 30, 15), 20, 40))
    box = RotatedBox(x_center_px=20, y_center_px=10, width_px=20, height_px=10, angle_deg=90)
    rotated = Annotation(concept="dog", rotated_box=box)

    (example,), others = read_masked(iter([a_row(mask, rotated)]))

    assert (example.box_concepts, others) == (("cat", "dog"), 0)
    assert example.boxes[1] == pytest.approx(np.array([15 / 40, 0, 25 / 40, 1]))


def test_images_without_objects_are_negatives_and_those_with_other_shapes_are_counted() -> None:
    label = Annotation(concept="cat", image_label=ImageLabel())
    box = Annotation(concept="cat", box=PixelBox(x_max_px=5, y_max_px=5))

    examples, others = read_masked(iter([a_row(), a_row(label), a_row(box), a_row() | {"accept_time": None}]))

    assert [(example.masks, len(example.boxes)) for example in examples] == [((), 0)]
    assert others == 2


def test_polygons_beside_the_image_are_dropped() -> None:
    (example,), _ = read_masked(iter([a_row(a_polygon("cat", (39.7, 0), (40, 0), (40, 20)))]))
    assert (example.masks, example.concepts) == ((), ())


def test_another_mask_is_another_example() -> None:
    first, second = (
        read_masked(iter([a_row(a_polygon("cat", (0, 0), (20, 0), point))]))[0][0] for point in ((0, 20), (19, 20))
    )
    assert first.identity != second.identity


@pytest.mark.parametrize(
    "view",
    [
        WHOLE,
        View((0.0, 0.0, 1.0, 1.0), flipped=True, colours=(1.0, 1.0, 1.1)),
        View((0.1, 0.2, 0.7, 0.8), flipped=False, colours=(1.0, 1.0, 1.0)),
        View((-0.2, -0.1, 1.2, 1.3), flipped=True, colours=(1.0, 1.0, 1.0)),
    ],
)
def test_targets_are_the_pixels_of_the_objects_in_boxes_near_them(view: View) -> None:
    """The target of a box, pasted at its place in the view, is the mask in the view."""
    size, side = (200, 200), 128
    down, across = np.mgrid[:200, :200] + 0.5
    disc = edges(np.hypot(across - 100, down - 100) < 50)
    boxes, _ = view_boxes(np.array([[0.25, 0.25, 0.75, 0.75]], np.float32), view, side)

    targets = mask_targets([disc], size, boxes, np.array([1]), view, side, np.random.default_rng(0))

    low, high = np.array(view.window[:2]), np.array(view.window[2:])
    centre, radii = (0.5 - low) / (high - low), 0.25 / (high - low)
    centre[0] = 1 - centre[0] if view.flipped else centre[0]
    (box,), (mask,) = targets.boxes, targets.masks
    x, y = (box[start] + (np.arange(28) + 0.5) / 28 * (box[start + 2] - box[start]) for start in (0, 1))
    expected = ((x[None] - centre[0]) / radii[0]) ** 2 + ((y[:, None] - centre[1]) / radii[1]) ** 2 < 1
    assert (mask == expected).mean() > 0.96
    assert abs(box - boxes[0]).max() < 0.15
    assert targets.numbers.tolist() == [1]


def test_a_view_without_objects_has_no_targets() -> None:
    targets = mask_targets([], (20, 40), np.zeros((0, 4), np.float32), NO_NUMBERS, WHOLE, 128, np.random.default_rng(0))
    assert (targets.boxes.shape, targets.masks.shape) == ((0, 4), (0, 28, 28))


def test_test_scenes_are_as_declared() -> None:
    example = masked(Scenes(1, empty_count=0).examples(0)[0])
    assert example.split is Split.TEST
    assert example.masks is not None
    around = [bounds_of(one, WIDTH_PX) for one in example.masks]
    assert np.array(around) == pytest.approx(example.boxes * np.array([WIDTH_PX, HEIGHT_PX] * 2))
    assert mask_ious(example.masks, example.masks) == pytest.approx(np.eye(3))
