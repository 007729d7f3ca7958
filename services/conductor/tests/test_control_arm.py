"""Live accuracy from the control arm."""

from typing import Any

import pytest
from conductor_builders import EMBEDDING, NAMES, a_label, a_task, version
from vesta_common.media.crowds import CROWD, TRUE
from vesta_conductor.reconciliation.control_arm import ControlAnswer, LiveAccuracy, accepted_errors, live_accuracy
from vesta_conductor.task_types import LoopTask
from vesta_conductor.task_types.classification import Classification
from vesta_conductor.task_types.detection import Detection
from vesta_conductor.task_types.instance_segmentation import InstanceSegmentation
from vesta_conductor.task_types.multi_label import MultiLabel
from vesta_conductor.task_types.semantic_segmentation import SemanticSegmentation
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import Annotation, Mask, PixelBox, PixelPoint, Polygon, Ring
from vesta_contracts.conductor.v1 import AcceptedErrors
from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_contracts.training.v1 import ModelVersion

CLASSIFICATION, MULTI_LABEL = Classification(), MultiLabel()


def checks(count: int, right: int, number: int, *, certain: bool = False) -> list[Task]:
    """Returns decided control tasks of one version, of which it predicted `right` correctly."""
    return [
        a_task(
            f"{number}-{place}",
            answer="car",
            pre_annotations=[a_label("van", 0.4), a_label("car" if place < right else "bus", 0.5)],
            model_version=version(number),
            control=True,
            prediction_certain=certain,
        )
        for place in range(count)
    ]


def compared(tasks: list[Task], task_type: LoopTask = CLASSIFICATION) -> list[ControlAnswer]:
    answers = (ControlAnswer.find(task, task_type) for task in tasks)
    return [answer for answer in answers if answer is not None]


def live_of(tasks: list[Task], task_type: LoopTask = CLASSIFICATION) -> LiveAccuracy | None:
    return live_accuracy(compared(tasks, task_type), model=NAMES.model)


def test_thirty_answers_measure_the_newest_model_alone() -> None:
    live = live_of(checks(30, 27, 2) + checks(40, 10, 1))
    assert live is not None
    assert (live.answer_count, live.model_count, live.estimate.value) == (30, 1, 0.9)
    assert live.estimate.low < 0.9 < live.estimate.high


def test_too_few_answers_are_pooled_with_those_of_previous_models() -> None:
    live = live_of(checks(10, 9, 10) + checks(20, 12, 9) + checks(50, 0, 8))
    assert live is not None
    assert (live.answer_count, live.model_count, live.estimate.value) == (30, 2, 0.7)


def test_tasks_drawn_before_there_was_a_classifier_do_not_count() -> None:
    unseen = [a_task(1, answer="car", control=True, model_version=EMBEDDING), a_task(2, answer="car", control=True)]
    assert live_of(unseen) is None


def test_a_multi_label_prediction_is_right_if_all_labels_are() -> None:
    half = a_task(1, answer="car", pre_annotations=[a_label("car", 0.9), a_label("van", 0.8)], model_version=version(1))
    whole = a_task(2, answer="car", pre_annotations=[a_label("car", 0.9)], model_version=version(1))
    nothing = a_task(3, answer="car", model_version=version(1))
    live = live_of([half, whole, nothing], MULTI_LABEL)
    assert live is not None
    assert (live.answer_count, live.estimate.value) == (3, pytest.approx(1 / 3))


def test_only_image_labels_are_compared_with_predictions() -> None:
    box = Annotation(concept="van", box=PixelBox(x_max_px=2, y_max_px=2))
    labelled, boxed = checks(2, 2, 1)
    labelled.accepted.append(box)
    boxed.accepted.clear()
    boxed.accepted.append(box)
    live = live_of([labelled, boxed])
    assert live is not None
    assert (live.answer_count, live.estimate.value) == (1, 1.0)


def a_crowd(annotation: Annotation) -> Annotation:
    annotation.attributes[CROWD] = TRUE
    return annotation


def a_box(concept: str, x_px: float, size_px: float = 10) -> Annotation:
    return Annotation(concept=concept, box=PixelBox(x_min_px=x_px, x_max_px=x_px + size_px, y_max_px=10))


@pytest.mark.parametrize(
    ("predicted", "accepted", "is_correct"),
    [
        ([], [], True),
        ([], [a_box("car", 0)], False),
        ([a_box("car", 0)], [], False),
        ([a_box("car", 3)], [a_box("car", 0)], True),  # IoU 7 / 13
        ([a_box("car", 4)], [a_box("car", 0)], False),  # IoU 6 / 14
        ([a_box("van", 0)], [a_box("car", 0)], False),
        ([a_box("car", 0), a_box("van", 0)], [a_box("van", 0), a_box("car", 0)], True),
        ([a_box("car", 0), a_box("car", 1)], [a_box("car", 0), a_box("car", 50)], False),
        # The first fits both, the second only one: a greedy pairing would leave it over.
        ([a_box("car", 2), a_box("car", -1)], [a_box("car", 0), a_box("car", 4)], True),
        ([a_box("car", 0, 0)], [a_box("car", 0, 0)], False),  # boxes without area overlap with nothing
        ([], [a_crowd(a_box("car", 0, 40))], True),
        ([a_box("car", 0), a_box("car", 20)], [a_crowd(a_box("car", 0, 40))], True),
        ([a_box("car", 0), a_box("van", 20)], [a_crowd(a_box("car", 0, 40))], False),
        ([a_box("car", 36)], [a_crowd(a_box("car", 0, 40))], False),  # 4 of 10 pixels in the crowd
        ([a_box("car", 0), a_box("car", 20)], [a_box("car", 0), a_crowd(a_box("car", 0, 40))], True),
        ([a_box("car", 20)], [a_box("car", 0), a_crowd(a_box("car", 0, 40))], False),
    ],
)
def test_a_detection_is_right_if_each_object_is_found_and_no_other(
    predicted: list[Annotation], accepted: list[Annotation], is_correct: bool
) -> None:
    task = a_task(1, pre_annotations=predicted, accepted=accepted, model_version=version(1), control=True)
    live = live_of([task], Detection())
    assert live is not None
    assert live.estimate.value == is_correct


def a_mask(concept: str, *runs: int) -> Annotation:
    """Returns a mask of 10 x 10 pixels."""
    return Annotation(concept=concept, mask=Mask(height_px=10, width_px=10, runs_px=[*runs, 100 - sum(runs)]))


def a_polygon(concept: str, y: float, y_end: float) -> Annotation:
    """Returns a polygon over the whole width of 10 pixels."""
    points = [PixelPoint(x_px=x, y_px=edge) for x, edge in ((0, y), (10, y), (10, y_end), (0, y_end))]
    return Annotation(concept=concept, polygon=Polygon(outline=Ring(points=points)))


@pytest.mark.parametrize(
    ("predicted", "accepted", "is_correct"),
    [
        ([], [], True),
        ([], [a_mask("car", 0, 50)], False),
        ([a_mask("car", 0, 50)], [], False),
        ([a_mask("car", 0, 50)], [a_polygon("car", 0, 6)], True),
        ([a_mask("car", 0, 50)], [a_polygon("car", 2, 7)], False),  # IoU 30 / 70
        ([a_mask("car", 0, 50)], [a_mask("van", 0, 50)], False),
        ([a_mask("car", 0, 50), a_mask("car", 60, 40)], [a_mask("car", 60, 40), a_mask("car", 0, 40)], True),
        ([a_mask("car", 0, 50), a_mask("car", 0, 40)], [a_mask("car", 0, 50), a_mask("car", 60, 40)], False),
        ([a_mask("car", 0, 50), a_mask("car", 60, 9)], [a_mask("car", 0, 40), a_crowd(a_mask("car", 60, 40))], True),
        ([a_mask("car", 0, 50), a_mask("van", 60, 9)], [a_mask("car", 0, 40), a_crowd(a_mask("car", 60, 40))], False),
    ],
)
def test_instances_are_right_if_each_is_found_and_no_other(
    predicted: list[Annotation], accepted: list[Annotation], is_correct: bool
) -> None:
    task = a_task(1, pre_annotations=predicted, accepted=accepted, model_version=version(1), control=True)
    assert InstanceSegmentation().is_correct(task) == is_correct


@pytest.mark.parametrize(
    ("predicted", "accepted", "is_correct"),
    [
        ([], [], True),
        ([], [a_mask("car", 0, 50)], False),
        ([a_mask("car", 0, 50), a_mask("van", 60, 9)], [a_mask("van", 60, 6), a_mask("car", 0, 40)], True),
        ([a_mask("car", 0, 50)], [a_mask("car", 0, 50), a_mask("van", 60, 1)], False),
        ([a_mask("car", 0, 50)], [a_mask("car", 0, 20)], False),
        ([a_mask("car", 0, 50)], [a_mask("van", 0, 50)], False),
        ([a_mask("car", 0, 50), a_mask("car", 50, 40)], [a_mask("car", 0, 90)], True),  # two masks are one area
    ],
)
def test_a_map_is_right_if_the_pixels_of_each_concept_are_found(
    predicted: list[Annotation], accepted: list[Annotation], is_correct: bool
) -> None:
    task = a_task(1, pre_annotations=predicted, accepted=accepted, model_version=version(1), control=True)
    assert SemanticSegmentation().is_correct(task) == is_correct


def errors_of(tasks: list[Task], **policy: Any) -> AcceptedErrors | None:
    return accepted_errors(
        compared(tasks),
        model=NAMES.model,
        policy=UncertaintyPolicy(**policy),
        version=ModelVersion(concepts=["bus", "car", "van"]),
    )


def test_only_certain_predictions_count_as_accepted() -> None:
    errors = errors_of(checks(40, 39, 2, certain=True) + checks(60, 0, 2))
    assert errors is not None
    assert (errors.answer_count, errors.control_answer_count) == (40, 100)
    assert errors.error_rate.value == 1 / 40
    assert errors.error_rate_max == 0.02
    assert not errors.exceeded
    assert errors_of(checks(60, 0, 2)) is None


def test_too_few_accepted_predictions_are_pooled_with_those_of_previous_models() -> None:
    errors = errors_of(checks(10, 10, 3, certain=True) + checks(50, 0, 2) + checks(20, 19, 1, certain=True))
    assert errors is not None
    assert (errors.answer_count, errors.control_answer_count) == (30, 80)


def test_an_interval_above_the_limit_exceeds_it() -> None:
    wrong = checks(100, 92, 1, certain=True)
    found = [
        errors_of(wrong),
        errors_of(wrong, error_rate_max=0.1),
        errors_of(wrong[:20]),
        errors_of(wrong, margin_certain=0.5),
    ]
    assert [errors is not None and errors.exceeded for errors in found] == [True, False, False, False]
    assert found[3] is not None
    assert not found[3].HasField("error_rate_max")


def test_a_concept_with_a_limit_of_its_own_is_allowed_more_errors() -> None:
    errors = errors_of(checks(100, 92, 1, certain=True), concept_error_rates_max={"car": 0.1, "bus": 0.1})
    assert errors is not None
    assert errors.error_rate_max == pytest.approx(0.02)  # the smallest limit of all concepts that are predicted
    right = errors_of(
        [
            a_task(
                1,
                answer="car",
                pre_annotations=[a_label("car", 0.9)],
                model_version=version(1),
                control=True,
                prediction_certain=True,
            )
        ],
        concept_error_rates_max={"car": 0.1},
    )
    assert right is not None
    assert right.error_rate_max == 0.1
