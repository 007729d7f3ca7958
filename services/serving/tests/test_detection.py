"""Detection: from the objects of a model to boxes on the image, their uncertainty, and predictions through the service."""

import io

import numpy as np
import pytest
from PIL import Image
from serving_builders import DATASET, a_picture
from serving_service import Serving
from vesta_common.errors import FailedPrecondition
from vesta_common.events.outbox import EVENT_BYTES_MAX
from vesta_common.media.model_input import InputFormat, Placement, place
from vesta_common.media.model_signatures import OBJECTS
from vesta_contracts.common.v1 import Annotation, PixelBox, Prediction, TaskType
from vesta_contracts.serving.v1 import (
    Deployment,
    ListPredictionsRequest,
    PredictInput,
    PredictionCreated,
    UncertaintyPolicy,
)
from vesta_contracts.training.v1 import ModelInput
from vesta_serving.task_types import TASK_TYPES, Policy, Vocabulary

CONCEPTS = ("bus", "car", "van")
VOCABULARY = Vocabulary("v", CONCEPTS, (0.5, 0.5, 0.25), objects_max=6)
WHOLE = place(InputFormat(100, 100), 100, 100)
FIXED = Policy.of(UncertaintyPolicy(margin_certain=0.2))


def an_object(
    concept: str, score: float, box: tuple[float, float, float, float] = (10, 10, 30, 40)
) -> tuple[float, ...]:
    return (*box, score, CONCEPTS.index(concept))


def detected(
    *objects: tuple[float, ...],
    policy: Policy = FIXED,
    placement: Placement = WHOLE,
    vocabulary: Vocabulary = VOCABULARY,
) -> Prediction:
    padded = np.zeros((6, 6), np.float32)
    for row, values in enumerate(objects):
        padded[row] = values
    return TASK_TYPES[TaskType.TASK_TYPE_DETECTION].prediction({OBJECTS: padded}, vocabulary, policy, placement)


def corners(annotation: Annotation) -> list[float]:
    box = annotation.box
    return [round(side, 3) for side in (box.x_min_px, box.y_min_px, box.x_max_px, box.y_max_px)]


def test_an_image_without_objects_is_certain_and_has_a_score_of_zero_for_each_concept() -> None:
    found = detected()
    assert [(each.concept, each.score, each.predicted) for each in found.scores] == [
        (name, 0, False) for name in CONCEPTS
    ]
    assert (list(found.annotations), found.uncertain, found.margin) == ([], False, 1.0)


def test_a_concept_has_the_best_score_of_its_objects_and_is_predicted_from_its_threshold() -> None:
    found = detected(
        an_object("van", 0.4), an_object("car", 0.95, (50, 50, 80, 90)), an_object("car", 0.125, (0, 60, 20, 80))
    )
    assert [(each.concept, round(each.score, 3), each.predicted, each.threshold) for each in found.scores] == [
        ("car", 0.95, True, 0.5),
        ("van", 0.4, True, 0.25),
        ("bus", 0, False, 0.5),
    ]
    assert [(each.concept, round(each.score, 3), corners(each)) for each in found.annotations] == [
        ("car", 0.95, [50, 50, 80, 90]),
        ("van", 0.4, [10, 10, 30, 40]),
        ("car", 0.125, [0, 60, 20, 80]),
    ]


def test_thresholds_of_the_deployment_override_those_of_the_version() -> None:
    policy = Policy.of(UncertaintyPolicy(thresholds={"van": 0.75}))
    found = detected(an_object("van", 0.4), policy=policy)
    assert [each.threshold for each in found.scores if each.concept == "van"] == [0.75]
    assert not any(each.predicted for each in found.scores)


def test_a_threshold_of_zero_predicts_no_concept_without_an_object() -> None:
    found = detected(vocabulary=Vocabulary("v", CONCEPTS, (0.0, 0.0, 0.0)))
    assert not any(each.predicted for each in found.scores)


def test_a_score_close_to_its_threshold_makes_the_prediction_uncertain() -> None:
    found = detected(an_object("car", 0.95), an_object("bus", 0.46, (50, 50, 80, 90)))
    assert found.uncertain
    assert found.margin == pytest.approx(0.08)
    assert found.uncertain_reason == (
        "the score of a bus is 0.46, close to its threshold 0.50: the margin 0.08 is below 0.2"
    )


def test_predicted_objects_that_overlap_make_the_prediction_uncertain() -> None:
    beside = an_object("bus", 0.98, (30, 10, 50, 40))
    over = an_object("bus", 0.98, (10, 10, 30, 38))
    assert not detected(an_object("car", 0.99), beside).uncertain
    assert detected(an_object("car", 0.99), over).uncertain_reason == (
        "a car and a bus overlap by 93%, so they may be one object"
    )
    assert not detected(an_object("car", 0.99), an_object("bus", 0.02, (10, 10, 30, 38))).uncertain


def test_as_many_objects_as_the_model_can_return_make_the_prediction_uncertain() -> None:
    boxes = [(10.0 * place, 0.0, 10.0 * place + 9, 9.0) for place in range(6)]
    assert (
        "as many as the model can return" in detected(*(an_object("car", 0.99, box) for box in boxes)).uncertain_reason
    )
    assert not detected(*(an_object("car", 0.99, box) for box in boxes[:5])).uncertain


def test_boxes_are_scaled_to_the_image_and_clipped() -> None:
    placement = place(InputFormat(100, 100, "letterbox"), 200, 100)
    found = detected(
        an_object("car", 0.9, (50, 50, 75, 100)), an_object("car", 0.8, (0, 0, 50, 20)), placement=placement
    )
    assert [corners(each) for each in found.annotations] == [[100, 50, 150, 100]]  # the other one is on the grey


def test_an_object_of_an_unknown_concept_is_an_error_of_the_model() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        detected((10, 10, 30, 40, 0.9, 3))
    assert caught.value.reason == "MODEL_OUTPUT_INVALID"


BOX = (100, 60, 180, 100)


def a_scene(red: int = 250) -> bytes:
    """A picture of 320 × 200 pixels with a red box at `BOX`."""
    picture = Image.new("RGB", (320, 200), "white")
    picture.paste((red, 0, 0), BOX)
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def a_region(x_min: float, y_min: float, x_max: float, y_max: float) -> PixelBox:
    return PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max)


@pytest.mark.parametrize("resize", [ModelInput.STRETCH, ModelInput.LETTERBOX, ModelInput.CROP])
def test_predict_returns_boxes_on_the_image_for_files_items_and_regions(
    serving: Serving, resize: ModelInput.Resize.ValueType
) -> None:
    deployment = serving.deployed(serving.registry.add_detector(resize))
    assert (deployment.state, deployment.error) == (Deployment.READY, "")
    item = serving.items.add(a_scene()).name
    region = a_region(80, 40, 240, 130)
    outside = a_region(300, 0, 330, 100)
    *answers, refused = serving.predict(
        deployment,
        PredictInput(data=a_scene()),
        PredictInput(item=item),
        PredictInput(data=a_scene(), region=region),
        PredictInput(item=item, region=region),
        PredictInput(item=item, region=outside),
    ).predictions
    for answer in answers:
        (found,) = answer.prediction.annotations
        assert found.concept == "red"
        assert np.abs(np.subtract(corners(found), BOX)).max() < 2.5
        assert [(each.concept, each.predicted) for each in answer.prediction.scores] == [
            ("red", True),
            ("green", False),
        ]
    assert refused.reason == "REGION_INVALID"
    assert (
        list(serving.predict(deployment, PredictInput(data=a_picture("blue"))).predictions[0].prediction.annotations)
        == []
    )


def test_an_item_is_read_once_for_all_of_its_regions(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add_detector())
    items = [serving.items.add(a_scene(red)).name for red in (250, 251)]
    requested: list[str] = []
    serving.items.look = lambda: requested.append("item")
    half, beside = a_region(80, 40, 240, 130), a_region(0, 0, 60, 60)

    answers = serving.predict(
        deployment,
        PredictInput(item=items[0], region=half),
        PredictInput(item=items[1]),
        PredictInput(data=a_scene(), region=half),
        PredictInput(item=items[0], region=beside),
        PredictInput(item=items[0]),
    ).predictions

    assert requested == ["item", "item"]
    assert [len(answer.prediction.annotations) for answer in answers] == [1, 1, 1, 0, 1]


def test_the_log_and_the_events_contain_the_boxes(serving: Serving) -> None:
    item = serving.items.add(a_scene())
    serving.datasets.task_types[DATASET] = TaskType.TASK_TYPE_DETECTION
    deployment = serving.deployed(serving.registry.add_detector(), datasets=[DATASET])
    serving.score()
    (answer,) = serving.predict(deployment, PredictInput(item=item.name)).predictions
    serving.log.step()

    (logged,) = serving.predictions.ListPredictions(
        ListPredictionsRequest(parent=deployment.name, filter="label = red")
    ).predictions
    (made,) = serving.told(PredictionCreated)
    assert logged.prediction == answer.prediction
    assert list(made.predictions[0].prediction.annotations) == list(answer.prediction.annotations)
    assert (made.embedding_digest, made.predictions[0].embedding) == ("", b"")


def test_events_refer_to_annotations_that_are_too_large_for_them(serving: Serving) -> None:
    items = [serving.items.add(a_scene()) for _ in range(3)]
    serving.datasets.task_types[DATASET] = TaskType.TASK_TYPE_DETECTION
    serving.deployed(serving.registry.add_detector(copies=1_000), datasets=[DATASET])
    serving.score()
    told = serving.told(PredictionCreated)
    made = [each for event in told for each in event.predictions]
    assert [each.item for each in made] == [item.name for item in items]
    assert max(event.ByteSize() for event in told) < EVENT_BYTES_MAX
    (stored,) = {each.prediction.stored.object_key for each in made}
    assert [each.prediction.stored.annotation_count for each in made] == [1_000] * 3
    (found, *_) = serving.scorer._large.load(made[0].prediction.stored)
    assert (found.concept, len(made[0].prediction.annotations)) == ("red", 0)
    assert stored.startswith("annotations/acme/vans/")


def test_a_detector_is_scored_on_items_with_embeddings_of_another_model(serving: Serving) -> None:
    """A model without embeddings has no embedding space, so that items without an embedding are not those of its space."""
    items = [serving.items.add(a_scene(red)) for red in (250, 140)]
    serving.datasets.task_types[DATASET] = TaskType.TASK_TYPE_DETECTION
    serving.deployed(serving.registry.add_detector(), datasets=[DATASET])
    serving.score()
    (made,) = serving.told(PredictionCreated)
    assert [len(each.prediction.annotations) for each in made.predictions] == [1] * len(items)
