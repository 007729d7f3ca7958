"""Semantic segmentation: from the map of a model to the map of the image, its uncertainty, and predictions through the service."""

import io

import numpy as np
import pytest
from PIL import Image
from serving_builders import DATASET
from serving_service import Serving
from vesta_common.errors import FailedPrecondition
from vesta_common.events.outbox import EVENT_BYTES_MAX
from vesta_common.media.model_input import InputFormat, place
from vesta_contracts.common.v1 import PixelBox, Prediction, SegmentationMap, TaskType
from vesta_contracts.serving.v1 import Deployment, PredictInput, PredictionCreated, UncertaintyPolicy
from vesta_contracts.training.v1 import ModelInput
from vesta_serving.task_types import TASK_TYPES, Policy, Vocabulary

VOCABULARY = Vocabulary("v", ("red", "green"), (0.5, 0.5))
FIXED = Policy.of(UncertaintyPolicy(margin_certain=0.2))
BOX = (100, 60, 180, 100)


def segmented(rows: list[list[int]], presence: list[float], overlap: list[float], policy: Policy = FIXED) -> Prediction:
    found = np.array(rows, np.uint8)
    outputs = {
        "segmentation": found,
        "presence": np.array(presence, np.float32),
        "overlap": np.array(overlap, np.float32),
    }
    placement = place(InputFormat(*found.shape), found.shape[1], found.shape[0])
    return TASK_TYPES[TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION].prediction(outputs, VOCABULARY, policy, placement)


def pixels(found: SegmentationMap, concept: str) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Returns `(height, width)`, true where the map has the concept."""
    number = list(found.concepts).index(concept) + 1
    flat = np.repeat(np.array(found.concept_numbers) == number, list(found.runs_px))
    return flat.reshape(found.height_px, found.width_px)


def test_a_map_without_concepts_is_certain_and_has_a_score_of_zero_for_each_concept() -> None:
    found = segmented([[0, 0]], [0.9, 0.1], [0, 0])
    assert [(each.concept, each.score, each.predicted) for each in found.scores] == [
        ("red", 0, False),
        ("green", 0, False),
    ]
    assert found.segmentation_map == SegmentationMap(height_px=1, width_px=2, runs_px=[2], concept_numbers=[0])
    assert (found.uncertain, found.margin, found.uncertain_reason) == (False, 1, "")


def test_concepts_that_reach_their_threshold_are_on_the_map() -> None:
    found = segmented([[1, 2], [1, 0]], [0.9, 0.2], [0.95, 0.9])
    assert [(each.concept, each.predicted) for each in found.scores] == [("red", True), ("green", False)]
    assert list(found.segmentation_map.concepts) == ["red"]
    assert pixels(found.segmentation_map, "red").tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize(
    ("presence", "overlap", "reason"),
    [
        (
            [0.55, 0.9],
            [0.95, 0.95],
            "the score of red is 0.55, close to its threshold 0.50: the margin 0.10 is below 0.2",
        ),
        (
            [0.95, 0.9],
            [0.95, 0.55],
            "the pixels of green are expected to overlap the true ones by 55%: the margin 0.10",
        ),
        ([0.95, 0.9], [0.2, 0.95], "the pixels of red are expected to overlap the true ones by 20%: the margin 0.00"),
    ],
)
def test_a_doubtful_concept_or_extent_makes_the_prediction_uncertain(
    presence: list[float], overlap: list[float], reason: str
) -> None:
    found = segmented([[1, 2]], presence, overlap)
    assert found.uncertain
    assert reason in found.uncertain_reason


def test_without_evidence_every_map_needs_a_human() -> None:
    found = segmented([[1, 0]], [1.0, 0.0], [1.0, 0.0], Policy.of(UncertaintyPolicy()))
    assert found.uncertain
    assert "needs at least 149 held-out labels" in found.uncertain_reason


def test_an_unknown_concept_is_an_error_of_the_model() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        segmented([[3, 0]], [0.9, 0.1], [0.9, 0.9])
    assert caught.value.reason == "MODEL_OUTPUT_INVALID"


def a_file(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def a_scene() -> bytes:
    """A picture of 320 × 200 pixels with a red box at `BOX`."""
    picture = Image.new("RGB", (320, 200), "white")
    picture.paste((250, 0, 0), BOX)
    return a_file(picture)


@pytest.mark.parametrize("resize", [ModelInput.STRETCH, ModelInput.LETTERBOX, ModelInput.CROP])
def test_predict_returns_maps_of_the_image_for_files_items_and_regions(
    serving: Serving, resize: ModelInput.Resize.ValueType
) -> None:
    deployment = serving.deployed(serving.registry.add_map_model(resize))
    assert (deployment.state, deployment.error) == (Deployment.READY, "")
    item = serving.items.add(a_scene()).name
    half = PixelBox(x_min_px=80, y_min_px=60, x_max_px=140, y_max_px=96)
    file, of_item, of_half = serving.predict(
        deployment,
        PredictInput(data=a_scene()),
        PredictInput(item=item),
        PredictInput(data=a_scene(), region=half),
    ).predictions
    truth = np.zeros((200, 320), np.bool_)
    truth[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    for answer in (file, of_item):
        found = pixels(answer.prediction.segmentation_map, "red")
        assert found.shape == truth.shape
        assert (found & truth).sum() / (found | truth).sum() > 0.9
        assert [(each.concept, each.predicted) for each in answer.prediction.scores] == [
            ("red", True),
            ("green", False),
        ]
    found = pixels(of_half.prediction.segmentation_map, "red")
    truth[96:], truth[:, 140:] = False, False
    assert not found[96:].any()
    assert not found[:, 140:].any()
    assert (found & truth).sum() / (found | truth).sum() > 0.9


def test_events_refer_to_maps_that_are_too_large_for_them(serving: Serving) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (96, 160, 1), np.uint8) * np.array([250, 0, 0], np.uint8)
    picture = Image.fromarray(noise.astype(np.uint8)).resize((640, 384), Image.Resampling.NEAREST)
    items = [serving.items.add(a_file(picture)) for _ in range(3)]
    serving.datasets.task_types[DATASET] = TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION
    deployment = serving.deployed(serving.registry.add_map_model(), datasets=[DATASET])
    serving.score()
    told = serving.told(PredictionCreated)
    made = [each for event in told for each in event.predictions]
    assert [each.item for each in made] == [item.name for item in items]
    assert max(event.ByteSize() for event in told) < EVENT_BYTES_MAX
    assert not any(each.prediction.HasField("segmentation_map") for each in made)
    (answer,) = serving.predict(deployment, PredictInput(item=items[0].name)).predictions
    whole = serving.scorer._large.whole(made[0].prediction)
    assert whole.segmentation_map == answer.prediction.segmentation_map
    assert pixels(whole.segmentation_map, "red").shape == (384, 640)
