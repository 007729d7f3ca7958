"""Deployments that compare the objects of an image with those of its mirror image."""

import io

import numpy as np
import pytest
from PIL import Image
from serving_builders import DATASET
from serving_service import Serving
from vesta_common.media.model_input import InputFormat, place
from vesta_common.media.model_signatures import MASKS, OBJECTS
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.serving.v1 import PredictInput, PredictionCreated, UncertaintyPolicy
from vesta_serving.task_types import TASK_TYPES, Policy, Vocabulary

VOCABULARY = Vocabulary("v", ("bus", "car"), (0.5, 0.5))
BUS, CAR = 0, 1
DEFAULT = Policy()
ACCEPTING = UncertaintyPolicy(margin_certain=0.1, two_views=True)


def an_output(*objects: tuple[tuple[float, ...], float, int]) -> dict[str, np.ndarray]:
    rows = np.zeros((4, 6), np.float32)
    for row, (box, score, number) in enumerate(objects):
        rows[row] = (*box, score, number)
    return {OBJECTS: rows, MASKS: np.ones((4, 8, 8), np.float32)}


def disagreement(
    own: dict[str, np.ndarray],
    mirrored: dict[str, np.ndarray],
    task_type: TaskType.ValueType = TaskType.TASK_TYPE_DETECTION,
    policy: Policy = DEFAULT,
) -> str:
    placement = place(InputFormat(100, 100, "letterbox"), 199, 100)
    return TASK_TYPES[task_type].disagreement(own, mirrored, VOCABULARY, policy, placement, width_px=100)


@pytest.mark.parametrize("task_type", [TaskType.TASK_TYPE_DETECTION, TaskType.TASK_TYPE_INSTANCE_SEGMENTATION])
def test_the_same_objects_in_the_mirror_image_are_no_disagreement(task_type: TaskType.ValueType) -> None:
    own = an_output(((10, 30, 30, 60), 0.9, CAR), ((40, 30, 60, 60), 0.8, BUS))
    mirrored = an_output(((41, 31, 60, 61), 0.6, BUS), ((70, 30, 90, 60), 0.95, CAR))
    assert disagreement(own, mirrored, task_type) == ""
    assert disagreement(an_output(), an_output(), task_type) == ""


@pytest.mark.parametrize(
    ("mirrored", "expected"),
    [
        ([], "two views disagree: 1 car in the image, 0 in its mirror image"),
        ([((70, 30, 90, 60), 0.45, CAR)], "two views disagree: 1 car in the image, 0 in its mirror image"),
        ([((70, 30, 90, 60), 0.9, BUS)], "two views disagree: 0 bus in the image, 1 in its mirror image"),
        ([((10, 30, 30, 60), 0.9, CAR)], "two views disagree: an object lies elsewhere in the mirror image"),
    ],
)
def test_other_objects_in_the_mirror_image_are_a_disagreement(
    mirrored: list[tuple[tuple[float, ...], float, int]], expected: str
) -> None:
    assert disagreement(an_output(((10, 30, 30, 60), 0.9, CAR)), an_output(*mirrored)) == expected


def test_thresholds_of_the_deployment_decide_which_objects_are_compared() -> None:
    own, mirrored = an_output(((10, 30, 30, 60), 0.9, CAR)), an_output(((70, 30, 90, 60), 0.45, CAR))
    policy = Policy.of(UncertaintyPolicy(thresholds={"car": 0.4}))
    assert disagreement(own, mirrored, policy=policy) == ""


def test_other_task_types_do_not_compare_views() -> None:
    comparing = {task_type for task_type, task in TASK_TYPES.items() if task.compares_views}
    assert comparing == {TaskType.TASK_TYPE_DETECTION, TaskType.TASK_TYPE_INSTANCE_SEGMENTATION}


def a_scene(left_px: int) -> bytes:
    """A picture of 320 × 200 pixels with a red box."""
    picture = Image.new("RGB", (320, 200), "white")
    picture.paste((250, 0, 0), (left_px, 60, left_px + 80, 100))
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def test_predict_and_scoring_make_predictions_uncertain_whose_views_disagree(serving: Serving) -> None:
    items = [serving.items.add(a_scene(left)) for left in (20, 120)]  # the second one in the middle
    serving.datasets.task_types[DATASET] = TaskType.TASK_TYPE_DETECTION
    deployment = serving.deployed(
        serving.registry.add_detector(seen_share=0.6), datasets=[DATASET], uncertainty=ACCEPTING
    )
    answers = serving.predict(deployment, *(PredictInput(item=item.name) for item in items)).predictions
    expected = [(True, "two views disagree: 1 red in the image, 0 in its mirror image"), (False, "")]
    assert [(one.prediction.uncertain, one.prediction.uncertain_reason) for one in answers] == expected
    assert [len(one.prediction.annotations) for one in answers] == [1, 1]
    serving.score()
    (made,) = serving.told(PredictionCreated)
    found = [each.prediction for each in made.predictions]
    assert [(one.uncertain, one.uncertain_reason) for one in found] == expected


def test_a_deployment_without_two_views_accepts_them(serving: Serving) -> None:
    deployment = serving.deployed(
        serving.registry.add_detector(seen_share=0.6), uncertainty=UncertaintyPolicy(margin_certain=0.1)
    )
    (answer,) = serving.predict(deployment, PredictInput(data=a_scene(20))).predictions
    assert not answer.prediction.uncertain
