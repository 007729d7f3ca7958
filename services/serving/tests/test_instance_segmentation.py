"""Instance segmentation: from the objects and masks of a model to masks on the image, and predictions through the service."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from serving_builders import DATASET, a_picture
from serving_service import Serving
from vesta_common.errors import FailedPrecondition
from vesta_common.media.mask_runs import area, bounds_of, edges_of
from vesta_common.media.model_input import InputFormat, Placement, place
from vesta_common.media.model_signatures import MASKS, OBJECTS
from vesta_common.media.shapes import find_flaw
from vesta_contracts.common.v1 import Annotation, PixelBox, Prediction, TaskType
from vesta_contracts.serving.v1 import Deployment, PredictInput, PredictionCreated, UncertaintyPolicy
from vesta_serving.task_types import TASK_TYPES, Policy, Vocabulary

CONCEPTS = ("bus", "car", "van")
VOCABULARY = Vocabulary("v", CONCEPTS, (0.5, 0.5, 0.25), objects_max=6)
WHOLE = place(InputFormat(100, 100), 100, 100)
FIXED = Policy.of(UncertaintyPolicy(margin_certain=0.2))
FULL = np.ones((8, 8), np.float32)
LEFT_HALF = np.where(np.arange(8) < 4, 0.9, 0.1).astype(np.float32) * np.ones((8, 1), np.float32)

Object = tuple[str, float, tuple[float, float, float, float], NDArray[np.float32]]


def segmented(*objects: Object, policy: Policy = FIXED, placement: Placement = WHOLE) -> Prediction:
    rows, masks = np.zeros((6, 6), np.float32), np.zeros((6, 8, 8), np.float32)
    for number, (concept, score, box, mask) in enumerate(objects):
        rows[number], masks[number] = (*box, score, CONCEPTS.index(concept)), mask
    return task_answer(rows, masks, policy, placement)


def task_answer(
    rows: NDArray[Any], masks: NDArray[Any], policy: Policy = FIXED, placement: Placement = WHOLE
) -> Prediction:
    task = TASK_TYPES[TaskType.TASK_TYPE_INSTANCE_SEGMENTATION]
    return task.prediction({OBJECTS: rows, MASKS: masks}, VOCABULARY, policy, placement)


def box_around(annotation: Annotation) -> Sequence[int]:
    return bounds_of(edges_of(annotation.mask), annotation.mask.width_px)


def test_an_image_without_objects_is_certain() -> None:
    found = segmented()
    assert (list(found.annotations), found.uncertain, found.margin) == ([], False, 1.0)
    assert [each.score for each in found.scores] == [0, 0, 0]


def test_masks_are_on_the_image_in_descending_order_of_score() -> None:
    found = segmented(("van", 0.4, (10, 10, 30, 40), LEFT_HALF), ("car", 0.95, (50, 50, 80, 90), FULL))
    assert [(each.concept, round(each.score, 3)) for each in found.annotations] == [("car", 0.95), ("van", 0.4)]
    assert [box_around(each) for each in found.annotations] == [(50, 50, 80, 90), (10, 10, 20, 40)]
    assert [(each.mask.height_px, each.mask.width_px) for each in found.annotations] == [(100, 100)] * 2
    assert not any(find_flaw(each) for each in found.annotations)
    assert [(each.concept, each.predicted) for each in found.scores] == [("car", True), ("van", True), ("bus", False)]


def test_masks_keep_their_place_where_boxes_exceed_the_image() -> None:
    placement = place(InputFormat(100, 100, "letterbox"), 200, 100)
    found = segmented(("car", 0.9, (0, 0, 100, 50), LEFT_HALF), ("car", 0.8, (0, 0, 50, 20), FULL), placement=placement)
    # The upper half of the first box is on the grey border; the other box is on it entirely.
    assert [box_around(each) for each in found.annotations] == [(0, 0, 100, 50)]


def test_masks_are_cut_to_the_region() -> None:
    placement = place(InputFormat(100, 100, "crop"), 200, 100, (50, 20, 150, 80))
    (found,) = segmented(("car", 0.9, (-10, 0, 100, 100), FULL), placement=placement).annotations
    x_min, y_min, x_max, y_max = box_around(found)
    assert x_min >= 50
    assert (y_min, x_max <= 150, y_max) == (20, True, 80)
    assert (found.mask.height_px, found.mask.width_px) == (100, 200)


def test_objects_without_pixels_are_left_out() -> None:
    found = segmented(("car", 0.9, (10, 10, 30, 40), FULL * 0.3), ("bus", 0.8, (10, 10, 30, 40), FULL))
    assert [each.concept for each in found.annotations] == ["bus"]
    assert (found.scores[0].concept, found.scores[0].predicted) == ("bus", True)


def test_overlapping_masks_are_doubtful_and_overlapping_boxes_alone_are_not() -> None:
    box = (10, 10, 30, 40)
    beside = segmented(("car", 0.99, box, LEFT_HALF), ("bus", 0.99, box, LEFT_HALF[:, ::-1]))
    over = segmented(("car", 0.99, box, LEFT_HALF), ("bus", 0.99, box, LEFT_HALF))
    assert not beside.uncertain
    assert over.uncertain_reason == "a car and a bus overlap by 100%, so they may be one object"


def test_a_score_close_to_its_threshold_is_doubtful() -> None:
    found = segmented(("bus", 0.46, (10, 10, 30, 40), FULL))
    assert found.uncertain_reason == (
        "the score of a bus is 0.46, close to its threshold 0.50: the margin 0.08 is below 0.2"
    )


@pytest.mark.parametrize("shape", [(6, 8), (5, 8, 8)])
def test_a_model_without_a_mask_for_each_object_is_an_error_of_the_model(shape: tuple[int, ...]) -> None:
    with pytest.raises(FailedPrecondition, match="masks") as caught:
        task_answer(np.zeros((6, 6), np.float32), np.zeros(shape, np.float32))
    assert caught.value.reason == "MODEL_OUTPUT_INVALID"


BOX = (100, 60, 180, 100)


def a_scene() -> bytes:
    """A picture of 320 × 200 pixels with a red box at `BOX`."""
    picture = Image.new("RGB", (320, 200), "white")
    picture.paste((250, 0, 0), BOX)
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def test_predict_returns_masks_on_the_image_for_files_items_and_regions(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add_segmenter())
    assert (deployment.state, deployment.error) == (Deployment.READY, "")
    item = serving.items.add(a_scene()).name
    region = PixelBox(x_min_px=80, y_min_px=40, x_max_px=240, y_max_px=130)
    *answers, empty = serving.predict(
        deployment,
        PredictInput(data=a_scene()),
        PredictInput(item=item),
        PredictInput(item=item, region=region),
        PredictInput(data=a_picture("blue")),
    ).predictions
    for answer in answers:
        (found,) = answer.prediction.annotations
        assert found.concept == "red"
        # The model of the tests says that the left half of each box is inside.
        assert np.abs(np.subtract(box_around(found), (100, 60, 140, 100))).max() <= 3
        assert (found.mask.height_px, found.mask.width_px) == (200, 320)
    assert list(empty.prediction.annotations) == []


def test_events_contain_the_masks_or_refer_to_them(serving: Serving) -> None:
    for _ in range(2):
        serving.items.add(a_scene())
    serving.datasets.task_types[DATASET] = TaskType.TASK_TYPE_INSTANCE_SEGMENTATION
    serving.deployed(serving.registry.add_segmenter(), datasets=[DATASET])
    serving.score()
    (few,) = serving.told(PredictionCreated)
    assert [area(edges_of(each.prediction.annotations[0].mask)) for each in few.predictions] == [
        pytest.approx(1600, rel=0.1)
    ] * 2


def test_many_masks_are_stored_as_an_object(serving: Serving) -> None:
    serving.items.add(a_scene())
    serving.datasets.task_types[DATASET] = TaskType.TASK_TYPE_INSTANCE_SEGMENTATION
    serving.deployed(serving.registry.add_segmenter(copies=400), datasets=[DATASET])
    serving.score()
    (made,) = (each for event in serving.told(PredictionCreated) for each in event.predictions)
    assert (made.prediction.stored.annotation_count, len(made.prediction.annotations)) == (400, 0)
    found = serving.scorer._large.load(made.prediction.stored)
    assert {each.WhichOneof("shape") for each in found} == {"mask"}
