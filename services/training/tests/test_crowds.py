"""Crowds are neither objects nor background: in examples, in what detectors learn, in metrics and in the evidence for error rates."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from object_predictions import check_with_pycocotools, some_predictions, with_masks
from vesta_common.media.crowds import CROWD, TRUE
from vesta_common.media.mask_runs import mask_of
from vesta_contracts.common.v1 import Annotation, PixelBox
from vesta_contracts.datasets.v1 import AnnotationList
from vesta_training.example import Split
from vesta_training.metrics.average_precision import MatchedPredictions, average_precisions
from vesta_training.metrics.detection import measure_objects
from vesta_training.metrics.draws import once
from vesta_training.metrics.objects import ObjectPredictions, Objects
from vesta_training.recipes.choices import EvaluationChoices
from vesta_training.tasks.detection.boxed_view import BoxedView, crowds_in_view
from vesta_training.tasks.detection.examples import BoxedExample, read_boxed
from vesta_training.tasks.detection.held_out import held_out_predictions
from vesta_training.tasks.detection.imported.loss import imported_loss
from vesta_training.tasks.detection.loss import detection_loss
from vesta_training.tasks.detection.matching import Matcher
from vesta_training.tasks.detection.network import Predicted
from vesta_training.tasks.instance_segmentation.examples import read_masked

CHOICES = EvaluationChoices(bootstrap_draws=200)
CROWDED = {CROWD: TRUE}


def a_row(annotations: Sequence[Annotation]) -> dict[str, Any]:
    return {
        "name": "items/1",
        "sha256": "a" * 64,
        "width_px": 200,
        "height_px": 100,
        "split": "TRAIN",
        "annotations": AnnotationList(annotations=annotations).SerializeToString(),
        "control": False,
        "accept_time": datetime(2026, 3, 1, tzinfo=UTC),
    }


def a_box(x_min: float, x_max: float, **attributes: str) -> Annotation:
    box = PixelBox(x_min_px=x_min, y_min_px=0, x_max_px=x_max, y_max_px=50)
    return Annotation(concept="cell", box=box, attributes=attributes)


def with_crowds(predictions: ObjectPredictions) -> ObjectPredictions:
    """The same predictions, with a quarter of the true objects as crowds."""
    generator = np.random.default_rng(5)
    truth = tuple(replace(one, is_crowd=generator.random(len(one.scores)) < 0.25) for one in predictions.truth)
    return replace(predictions, truth=truth)


def test_the_crowds_of_boxes_and_of_masks_are_known() -> None:
    outside, crowd, single = a_box(300, 400), a_box(10, 60, **CROWDED), a_box(100, 120, crowd="false")
    (boxed,), _ = read_boxed(iter([a_row([outside, crowd, single])]))
    masks = [Annotation(concept="cell", mask=mask_of(np.array([0, 9]), 100, 200), attributes=CROWDED)]
    (masked,), _ = read_masked(iter([a_row(masks)]))

    assert (boxed.crowds, boxed.is_crowd.tolist(), boxed.has_objects) == ((0,), [True, False], True)
    assert (masked.crowds, masked.has_objects) == ((0,), False)
    assert boxed.identity != replace(boxed, crowds=()).identity


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_map_beside_crowds_equals_that_of_pycocotools(seed: int, kind: str) -> None:
    predictions = with_crowds(some_predictions(seed) if kind == "bbox" else with_masks(some_predictions(seed), seed))

    metrics = measure_objects(predictions, CHOICES, seed=0)

    check_with_pycocotools(metrics, predictions, kind)
    matched, whole = MatchedPredictions.of(predictions), once(len(predictions.items))
    assert matched.by_concept(whole)[:3, 0] == pytest.approx(average_precisions(predictions).at_50[:3], abs=1e-9)


BOX, CROWD_BOX, IN_CROWD, FAR = [0, 0, 10, 10], [40, 0, 90, 50], [45, 5, 60, 20], [150, 50, 170, 70]


def objects(*boxes: list[int], crowds: Sequence[int] = ()) -> Objects:
    count = len(boxes)
    is_crowd = np.isin(np.arange(count), crowds)
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    return Objects(corners, np.zeros(count, np.int64), np.full(count, 0.9), is_crowd=is_crowd)


def test_objects_in_a_crowd_are_neither_right_nor_wrong() -> None:
    truth = objects(BOX, CROWD_BOX, crowds=[1])
    predictions = ObjectPredictions(("items/1",), ("cell",), (truth,), (objects(BOX, IN_CROWD, FAR),), (0.5,))

    metrics = measure_objects(predictions, CHOICES, seed=0)

    (concept,) = metrics.concepts
    assert (concept.precision.value, concept.recall.value, metrics.object_count) == (0.5, 1.0, 1)
    assert sum(one.item_count for one in metrics.reliability) == 2


@pytest.mark.parametrize(
    ("found", "is_right"),
    [
        ([BOX], True),
        ([BOX, IN_CROWD, IN_CROWD], True),
        ([BOX, CROWD_BOX], True),
        ([IN_CROWD], False),
        ([BOX, FAR], False),
    ],
)
def test_a_prediction_is_right_with_or_without_objects_in_a_crowd(found: list[list[int]], is_right: bool) -> None:
    truth = objects(BOX, CROWD_BOX, crowds=[1])
    predictions = ObjectPredictions(("items/1",), ("cell",), (truth,), (objects(*found),), (0.5,))
    example = BoxedExample("items/1", "0" * 64, ("cell",), Split.TEST)

    evidence = held_out_predictions(predictions, [example], drawn_at_random=True)

    assert evidence is not None
    assert list(evidence.correct) == [is_right]


def a_view(crowds: NDArray[np.float32] | None) -> BoxedView:
    return BoxedView("view", np.array([[0, 0, 0.2, 0.2]], np.float32), np.zeros(1, np.int64), crowds=crowds)


@pytest.mark.parametrize("is_imported", [False, True])
def test_detectors_do_not_learn_that_there_is_nothing_in_a_crowd(is_imported: bool) -> None:
    """The second box lies in the crowd, and the third beside it."""
    corners = torch.tensor([[0, 0, 0.2, 0.2], [0.5, 0.5, 0.7, 0.7], [0.3, 0, 0.45, 0.2]])
    crowd = np.array([[0.4, 0.4, 1, 1]], np.float32)

    def gradients(crowds: NDArray[np.float32] | None) -> list[bool]:
        logits = torch.zeros(1, 3, 1 if is_imported else 2, requires_grad=True)
        if is_imported:
            loss = imported_loss((logits, corners[None]), [a_view(crowds)])
        else:
            defaults = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)
            outputs = Predicted(logits, torch.zeros(1, 3, 4), torch.zeros(1, 1, 1, 1))
            loss = detection_loss(outputs, [a_view(crowds)], Matcher(defaults))
        loss.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        return logits.grad.abs().sum(dim=2)[0].bool().tolist()

    assert gradients(None) == [True, True, True]
    assert gradients(crowd) == [True, False, True]


def test_crowds_are_ignored_in_views_that_show_a_part_of_them() -> None:
    example = BoxedExample("items/1", "0" * 64, ("cell",), Split.TRAIN, box_concepts=("cell",) * 3, crowds=(1, 2))
    in_view = np.array([[0, 0, 1, 1], [0.9, 0, 1, 1], [1, 0, 1, 1]], np.float32)

    assert crowds_in_view(in_view, example).tolist() == pytest.approx(np.array([[0.9, 0, 1, 1]]))
