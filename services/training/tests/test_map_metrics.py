"""mIoU and IoU by concept from pixel counts, comparisons, evidence, and the examples of snapshots."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from vesta_common.media.mask_runs import mask_of
from vesta_contracts.common.v1 import Annotation, PixelBox
from vesta_contracts.datasets.v1 import AnnotationList
from vesta_training.errors import LearningError
from vesta_training.example import Split
from vesta_training.metrics.segmentation import MapPredictions, compare_maps, joined, mean_iou, measure_maps
from vesta_training.models.graph_layers import Calibration
from vesta_training.recipes.choices import EvaluationChoices
from vesta_training.tasks.semantic_segmentation.calibrate import with_presence
from vesta_training.tasks.semantic_segmentation.examples import MaskedExample, read_masked
from vesta_training.tasks.semantic_segmentation.held_out import held_out_predictions
from vesta_training.tasks.semantic_segmentation.loss import SMOOTHING, MappedView, SquareMap, segmentation_loss
from vesta_training.tasks.views.views import WHOLE, View, view_numbers

CHOICES = EvaluationChoices(bootstrap_draws=200)


def predicted(
    shared: list[list[int]], true: list[list[int]], found: list[list[int]], concepts: tuple[str, ...] = ("a", "b")
) -> MapPredictions:
    counts = [np.array(one, np.int64) for one in (shared, true, found)]
    return MapPredictions(
        tuple(f"items/{number}" for number in range(len(true))),
        concepts,
        *counts,
        scores=(counts[2] > 0).astype(np.float32),
        margins=np.linspace(0, 1, len(true), dtype=np.float32),
    )


MODEL = predicted([[6, 0], [2, 0], [0, 0]], [[8, 0], [4, 5], [0, 0]], [[8, 0], [2, 0], [0, 0]])


def test_the_iou_of_a_concept_is_that_of_its_pixels_in_all_images() -> None:
    metrics = measure_maps(MODEL, CHOICES, seed=0)
    assert [concept.iou for concept in metrics.concepts] == [8 / 14, 0]
    assert metrics.mean_iou.value == pytest.approx(4 / 14)
    assert metrics.mean_iou.low <= metrics.mean_iou.value <= metrics.mean_iou.high
    assert [concept.item_count for concept in metrics.concepts] == [2, 1]
    assert metrics.concepts[0].recall.value == 1
    assert not metrics.concepts[1].HasField("precision")


def test_without_pixels_there_is_no_miou() -> None:
    nothing = predicted([[0]], [[0]], [[0]], ("a",))
    assert mean_iou(nothing, CHOICES, seed=0) is None
    metrics = measure_maps(nothing, CHOICES, seed=0)
    assert not metrics.HasField("mean_iou")
    assert not metrics.concepts[0].HasField("iou")


def test_a_concept_that_is_only_predicted_has_an_iou_of_zero_and_lowers_the_mean() -> None:
    found = predicted([[5, 0]], [[5, 0]], [[5, 3]])
    assert measure_maps(found, CHOICES, seed=0).mean_iou.value == 0.5


def test_a_map_is_right_if_the_pixels_of_each_concept_overlap_by_half() -> None:
    assert predicted([[2, 0]], [[4, 0]], [[2, 0]]).right.tolist() == [True]
    assert MODEL.right.tolist() == [True, False, True]


def test_models_are_compared_on_the_same_images() -> None:
    worse = predicted([[4, 0], [1, 0], [0, 0]], [[8, 0], [4, 5], [0, 0]], [[8, 0], [2, 0], [0, 0]])
    comparison = compare_maps(MODEL, worse, CHOICES, champion_name="old", seed=0)
    assert comparison.difference.value == pytest.approx((8 / 14 - 5 / 17) / 2)
    assert comparison.difference.low > 0
    assert [one.item_count for one in comparison.concepts] == [2, 1]
    assert comparison.concepts[1].difference.value == 0
    with pytest.raises(ValueError, match="the same items and concepts"):
        compare_maps(MODEL, joined([worse, worse]), CHOICES, champion_name="old", seed=0)


def test_calibrated_scores_and_thresholds_apply_to_what_was_predicted_without() -> None:
    found = replace(MODEL, scores=np.array([[0.9, 0], [0.5, 0], [0, 0]], dtype=np.float32))

    calibrated = with_presence(found, Calibration((1.0, 1.0), (1.0, 1.0)), (0.8, 0.5))

    assert calibrated.scores[:, 0] == pytest.approx([0.9607, 0.7311, 0], abs=1e-4)
    assert calibrated.scores[:, 1].tolist() == [0, 0, 0]
    assert calibrated.predicted_px.tolist() == [[8, 0], [0, 0], [0, 0]]
    assert calibrated.shared_px.tolist() == [[6, 0], [0, 0], [0, 0]]
    assert calibrated.true_px.tolist() == MODEL.true_px.tolist()


def test_the_loss_compares_interpolated_logits_with_the_pixels_of_one_place_of_each_cell() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, 4, 4, generator=generator)
    pixels = torch.randint(3, (5, 8, 8), generator=generator)
    batch = [MappedView("key", WHOLE, SquareMap(one.numpy().astype(np.uint8))) for one in pixels]
    interpolated = torch.nn.functional.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
    places = [divmod(number % 4, 2) for number in range(5)]
    seen = torch.stack([one[:, down::2, right::2] for one, (down, right) in zip(interpolated, places, strict=True)])
    true = torch.stack([one[down::2, right::2] for one, (down, right) in zip(pixels, places, strict=True)])
    shares, own = seen.softmax(1), torch.nn.functional.one_hot(true, 3).permute(0, 3, 1, 2)
    both, areas = (shares * own).sum((0, 2, 3))[1:], (shares + own).sum((0, 2, 3))[1:]
    overlap = -((2 * both + SMOOTHING) / (areas + SMOOTHING)).log().mean()

    assert segmentation_loss(logits, batch, 0).item() == pytest.approx(
        torch.nn.functional.cross_entropy(seen, true).item(), abs=1e-5
    )
    assert segmentation_loss(logits, batch, 1).item() == pytest.approx(overlap.item(), abs=1e-5)


def test_a_batch_without_concepts_has_no_overlap_to_learn() -> None:
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, [MappedView("key", WHOLE, SquareMap(np.zeros((8, 8), np.uint8)))], 1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def an_example(number: int, *concepts: str) -> MaskedExample:
    return MaskedExample(f"items/{number}", f"{number:064x}", concepts, Split.TEST)


def test_evidence_counts_unknown_concepts_as_errors() -> None:
    examples = [an_example(0, "a"), an_example(1, "a", "b"), an_example(2, "unknown")]
    evidence = held_out_predictions(MODEL, examples, drawn_at_random=True)
    assert evidence is not None
    assert list(evidence.correct) == [True, False, False]
    assert list(evidence.concept_counts) == [1, 1, 0]


def a_row(annotations: list[Annotation], accepted: bool = True) -> dict[str, Any]:
    return {
        "name": "items/1",
        "sha256": "0" * 64,
        "width_px": 4,
        "height_px": 2,
        "split": "TRAIN",
        "annotations": AnnotationList(annotations=annotations).SerializeToString(),
        "control": False,
        "accept_time": 1 if accepted else None,
    }


def test_rows_become_maps_and_images_without_masks_are_negatives() -> None:
    masks = [
        Annotation(concept="b", mask=mask_of(np.array([2, 4]), 2, 4)),
        Annotation(concept="a", mask=mask_of(np.array([0, 2, 4, 5]), 2, 4)),
    ]
    boxed = [Annotation(concept="a", box=PixelBox(x_max_px=2, y_max_px=2))]
    examples, others = read_masked(iter([a_row(masks), a_row([]), a_row(boxed), a_row(masks, accepted=False)]))
    assert others == 1
    labelled, negative = examples
    assert labelled.concepts == ("a", "b")
    assert labelled.map({"a": 1, "b": 2}).tolist() == [[1, 1, 2, 2], [1, 0, 0, 0]]
    assert labelled.map({"b": 1}).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert (negative.concepts, negative.map({"a": 1}).any()) == ((), False)
    assert labelled.identity != negative.identity


def test_a_mask_of_another_size_than_its_image_is_an_error_that_names_both() -> None:
    other = Annotation(concept="a", mask=mask_of(np.array([0, 2]), 3, 3))
    with pytest.raises(LearningError, match="items/1 has a mask of 3 × 3 pixels on an image of 4 × 2"):
        read_masked(iter([a_row([other])]))


def test_maps_move_with_their_views() -> None:
    numbers = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 3, 3], [0, 0, 3, 3]], np.uint8)
    assert view_numbers(numbers, WHOLE, 4).tolist() == numbers.tolist()
    right = View((0.5, 0.0, 1.0, 1.0), flipped=False, colours=(1.0, 1.0, 1.0))
    assert view_numbers(numbers, right, 2).tolist() == [[2, 2], [3, 3]]
    mirrored = View((0.0, 0.0, 1.0, 1.0), flipped=True, colours=(1.0, 1.0, 1.0))
    assert view_numbers(numbers, mirrored, 4).tolist() == numbers[:, ::-1].tolist()
    beside = View((-0.5, 0.0, 0.5, 1.0), flipped=False, colours=(1.0, 1.0, 1.0))
    assert view_numbers(numbers, beside, 4)[:, :2].tolist() == [[0, 0]] * 4
