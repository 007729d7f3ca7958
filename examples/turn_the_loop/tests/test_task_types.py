"""Simulated annotators err at the stated rates, and answers are compared with the truth."""

import random
from pathlib import Path

import numpy as np
import pytest
from boxes import clipped
from contact_sheet import CELL_PX, write_contact_sheet
from masks import mask, pixels_of
from photographs import Photograph, label
from PIL import Image
from task_types import TASK_TYPES, DemoTask
from task_types.classification import MISTAKE_SHARE, Classification
from task_types.detection import Detection
from task_types.drawn import ADD_SHARE, CONFUSE_SHARE, MISS_SHARE
from task_types.instance_segmentation import InstanceSegmentation
from task_types.semantic_segmentation import SemanticSegmentation
from vesta_contracts.annotation.v1 import Disagreement, Review, Task
from vesta_contracts.common.v1 import Annotation, ConceptScore, Prediction, SegmentationMap, TaskType

SIZE_PX = (200, 100)
CONCEPTS = ["car", "van"]
IMAGES = 3000


def a_box(concept: str, x: float, y: float = 10, side: float = 40, score: float | None = None) -> Annotation:
    box = clipped(concept, (x, y, x + side, y + side), SIZE_PX)
    assert box is not None
    if score is not None:
        box.score = score
    return box


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.new("RGB", SIZE_PX).save(path)
    return path


def test_annotators_of_classes_err_at_their_rate(image: Path) -> None:
    draw, photograph = random.Random(1), Photograph(image, (label("car"),))
    answers = [Classification().answer(photograph, CONCEPTS, draw) for _ in range(IMAGES)]
    wrong = [answer.annotations[0].concept == "van" for answer in answers]
    assert [bool(answer.mistake_count) for answer in answers] == wrong
    assert sum(wrong) / IMAGES == pytest.approx(MISTAKE_SHARE, abs=0.015)


def test_annotators_of_boxes_err_at_their_rates(image: Path) -> None:
    draw, task = random.Random(1), Detection()
    truth = (a_box("car", 10), a_box("van", 100))
    answers = [task.answer(Photograph(image, truth), CONCEPTS, draw) for _ in range(IMAGES)]
    right = sum(len(task.pairs(truth, answer.annotations)) for answer in answers) / len(truth) / IMAGES
    assert right == pytest.approx((1 - MISS_SHARE) * (1 - CONFUSE_SHARE), abs=0.015)
    empty = [task.answer(Photograph(image, ()), CONCEPTS, draw) for _ in range(IMAGES)]
    assert sum(len(answer.annotations) for answer in empty) / IMAGES == pytest.approx(ADD_SHARE, abs=0.01)
    assert all(task.is_right(truth, answer.annotations) == (answer.mistake_count == 0) for answer in answers)
    corners = {answer.annotations[0].box.x_min_px for answer in answers if answer.annotations}
    assert len(corners) > IMAGES / 2  # no two draw alike


@pytest.mark.parametrize(
    ("found", "is_right"),
    [
        ([], False),
        ([a_box("van", 100), a_box("car", 10)], True),
        ([a_box("car", 22), a_box("van", 100)], True),  # IoU 28 / 52
        ([a_box("car", 24), a_box("van", 100)], False),  # IoU 26 / 54 and less
        ([a_box("car", 10), a_box("car", 100)], False),
        ([a_box("car", 10), a_box("van", 100), a_box("van", 101)], False),
    ],
)
def test_boxes_are_right_if_each_object_is_found_once(found: list[Annotation], is_right: bool) -> None:
    assert Detection().is_right([a_box("car", 10), a_box("van", 100)], found) == is_right


def test_no_boxes_are_right_where_there_is_nothing() -> None:
    assert Detection().is_right([], [])
    assert not Detection().is_right([], [a_box("car", 10)])


def test_only_objects_at_the_threshold_of_their_concept_are_predicted() -> None:
    found = [a_box("car", 10, score=0.5), a_box("car", 60, score=0.4), a_box("van", 100, score=0.4)]
    scores = [ConceptScore(concept="car", threshold=0.5), ConceptScore(concept="van", threshold=0.3)]
    predicted = Detection().predicted(Prediction(scores=scores, annotations=found))
    assert predicted == [found[0], found[2]]


def test_the_reviewer_of_boxes_decides_the_disputed_ones_alone() -> None:
    truth = [a_box("car", 10), a_box("van", 100)]
    disputed = [
        a_box("car", 102),
        a_box("van", 150),
        a_box("car", 12),
    ]  # another concept, one too many, an agreed one again
    task = Task(
        agreed=[a_box("car", 11)],
        disagreements=[
            *(Disagreement(disputed=True, suggestion=one) for one in disputed),
            Disagreement(suggestion=a_box("van", 60)),
        ],
    )
    review = Detection().review(task, truth)
    assert (review.decision, list(review.annotations)) == (Review.RESOLVE, [truth[1]])


def a_square(concept: str, x: int, y: int = 10, side: int = 40, score: float | None = None) -> Annotation:
    pixels = np.zeros(SIZE_PX[::-1], np.bool_)
    pixels[y : y + side, x : x + side] = True
    found = mask(concept, pixels)
    assert found is not None
    if score is not None:
        found.score = score
    return found


@pytest.mark.parametrize("task", [InstanceSegmentation(), SemanticSegmentation()])
def test_annotators_of_masks_err_at_their_rates(image: Path, task: InstanceSegmentation | SemanticSegmentation) -> None:
    draw, images = random.Random(1), 1000
    truth = (a_square("car", 10), a_square("van", 100))
    answers = [task.answer(Photograph(image, truth), ["bus", "car", "van"], draw) for _ in range(images)]
    mistakes = [answer.mistake_count for answer in answers]
    missed, confused = 2 * MISS_SHARE, 2 * 2 * CONFUSE_SHARE  # a confused object is missing, and one is superfluous
    assert sum(mistakes) / images == pytest.approx(missed + confused + ADD_SHARE, abs=0.05)
    assert all(task.is_right(truth, answer.annotations) == (answer.mistake_count == 0) for answer in answers)
    assert len({tuple(one.mask.runs_px) for answer in answers for one in answer.annotations}) > 20
    empty = [task.answer(Photograph(image, ()), CONCEPTS, draw) for _ in range(images)]
    assert sum(len(answer.annotations) for answer in empty) / images == pytest.approx(ADD_SHARE, abs=0.02)


def test_instances_are_right_if_each_is_found_once() -> None:
    task, truth = InstanceSegmentation(), [a_square("car", 10), a_square("car", 100)]
    assert task.is_right(truth, [a_square("car", 110), a_square("car", 12)])
    assert not task.is_right(truth, [a_square("car", 10)])
    assert not task.is_right(truth, [a_square("car", 10), a_square("car", 130)])
    assert not task.is_right(truth, [a_square("car", 10), a_square("van", 100)])


def test_a_map_is_right_if_the_pixels_of_each_concept_are_found() -> None:
    task, truth = SemanticSegmentation(), [a_square("car", 10), a_square("van", 100)]
    assert task.is_right(truth, [a_square("van", 110), a_square("car", 12)])
    assert not task.is_right(truth, [a_square("car", 10)])
    assert not task.is_right(truth, [*truth, a_square("bus", 150)])
    assert task.is_right([], [])


def test_a_predicted_map_is_one_mask_for_each_concept() -> None:
    runs = [(10, 0), (5, 1), (5, 2), (30, 1)]
    found = SegmentationMap(
        height_px=5,
        width_px=10,
        concepts=["van", "car", "bus"],
        runs_px=[length for length, _ in runs],
        concept_numbers=[number for _, number in runs],
    )
    predicted = SemanticSegmentation().predicted(Prediction(segmentation_map=found))
    assert [(one.concept, list(one.mask.runs_px)) for one in predicted] == [
        ("van", [10, 5, 5, 30]),
        ("car", [15, 5, 30]),
    ]
    assert SemanticSegmentation().predicted(Prediction()) == []


def test_the_reviewer_of_maps_decides_the_disputed_concepts_alone() -> None:
    truth = [a_square("car", 10), a_square("van", 100)]
    task = Task(
        agreed=[a_square("car", 80)],  # over the left half of the van
        disagreements=[
            Disagreement(disputed=True, suggestion=a_square("van", 150)),
            Disagreement(disputed=True, suggestion=a_square("bus", 0)),
        ],
    )
    review = SemanticSegmentation().review(task, truth)
    (decided,) = review.annotations
    assert review.decision == Review.RESOLVE
    assert decided.concept == "van"
    assert pixels_of(decided).sum() == 20 * 40


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_the_contact_sheet_marks_what_is_true_and_what_is_predicted(
    task_type: TaskType.ValueType, image: Path, tmp_path: Path
) -> None:
    task: DemoTask = TASK_TYPES[task_type]
    truths = {
        TaskType.TASK_TYPE_CLASSIFICATION: label("car"),
        TaskType.TASK_TYPE_DETECTION: a_box("car", 60),
    }
    truth = truths.get(task_type, a_square("car", 60))
    found = a_box("car", 61, score=0.9) if truth.HasField("box") else a_square("car", 61, score=0.9)
    prediction = Prediction(
        scores=[ConceptScore(concept="car", score=0.9, predicted=True)],
        annotations=[found],
        segmentation_map=SegmentationMap(
            height_px=100, width_px=200, concepts=["car"], runs_px=[2060, 40, 17900], concept_numbers=[0, 1, 0]
        ),
    )
    path = tmp_path / "demo" / "sheet.png"
    write_contact_sheet(path, [Photograph(image, (truth,))] * 3, task, lambda images: [prediction] * len(images))
    with Image.open(path) as sheet:
        assert sheet.size == (4 * CELL_PX[0], CELL_PX[1])
        cells = [sheet.crop((place * CELL_PX[0], 0, (place + 1) * CELL_PX[0], CELL_PX[1])) for place in range(4)]
        assert any(high > 200 for _, high in cells[0].convert("RGB").getextrema())
        assert cells[0].tobytes() == cells[2].tobytes() != cells[3].tobytes()


def test_without_test_images_no_contact_sheet_is_written(tmp_path: Path) -> None:
    write_contact_sheet(tmp_path / "sheet.png", [], Classification(), lambda _: [])
    assert not (tmp_path / "sheet.png").exists()
