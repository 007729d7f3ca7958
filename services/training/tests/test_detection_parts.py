"""The parts of detection: examples from manifest rows, default boxes, views, calibration and the cache of maps."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vesta_contracts.common.v1 import Annotation, ImageLabel, Mask, PixelBox
from vesta_contracts.datasets.v1 import AnnotationList
from vesta_training.example import Array
from vesta_training.features.feature_maps import MapCache
from vesta_training.metrics.objects import ObjectPredictions, Objects
from vesta_training.tasks.detection.calibrate import best_threshold, calibrate
from vesta_training.tasks.detection.default_boxes import choose_sizes, lay_out
from vesta_training.tasks.detection.examples import read_boxed
from vesta_training.tasks.detection.network import decode, encode
from vesta_training.tasks.views.views import WHOLE, View, ViewChoices, draw_view, view_boxes, view_pixels

SHA256 = "a" * 64
CHOICES = ViewChoices(zoom_min=0.65, zoom_max=1.6, flip=True)


def a_row(*annotations: Annotation, is_annotated: bool = True, **columns: Any) -> dict[str, Any]:
    return {
        "name": "items/1",
        "sha256": SHA256,
        "width_px": 200,
        "height_px": 100,
        "split": "TRAIN",
        "annotations": AnnotationList(annotations=annotations).SerializeToString(),
        "control": False,
        "accept_time": datetime(2026, 3, 1, tzinfo=UTC) if is_annotated else None,
        **columns,
    }


def a_box(concept: str, x_min: float, y_min: float, x_max: float, y_max: float) -> Annotation:
    return Annotation(concept=concept, box=PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max))


def test_boxes_are_shares_of_the_image_and_clipped_to_it() -> None:
    (example,), others = read_boxed(iter([a_row(a_box("cat", 50, 25, 250, 75), a_box("dog", -10, 0, 20, 10))]))

    assert example.boxes.tolist() == pytest.approx(np.array([[0.25, 0.25, 1, 0.75], [0, 0, 0.1, 0.1]]))
    assert (example.concepts, example.box_concepts, others) == (("cat", "dog"), ("cat", "dog"), 0)


def test_a_box_outside_the_image_is_dropped() -> None:
    (example,), _ = read_boxed(iter([a_row(a_box("cat", 300, 0, 400, 50))]))

    assert (example.boxes.shape, example.concepts) == ((0, 4), ())


def test_an_annotated_item_without_boxes_is_a_negative_and_an_unannotated_one_is_nothing() -> None:
    examples, others = read_boxed(iter([a_row(), a_row(is_annotated=False)]))

    assert [example.concepts for example in examples] == [()]
    assert others == 0


def test_items_with_other_annotations_only_are_counted() -> None:
    label = Annotation(concept="cat", image_label=ImageLabel())

    examples, others = read_boxed(iter([a_row(label), a_row(Annotation(concept="cat", mask=Mask()))]))

    assert (examples, others) == ((), 2)


def test_moving_a_box_changes_what_a_training_learns_from() -> None:
    (first,), _ = read_boxed(iter([a_row(a_box("cat", 10, 10, 20, 20))]))
    (second,), _ = read_boxed(iter([a_row(a_box("cat", 10, 10, 20, 21))]))

    assert first.identity != second.identity


def test_default_boxes_have_the_sizes_of_the_training_boxes() -> None:
    generator = np.random.default_rng(0)
    sizes = np.concatenate([np.tile([[0.05, 0.07]], (30, 1)), np.tile([[0.5, 0.4]], (30, 1))]).astype(np.float32)
    sizes *= generator.uniform(0.99, 1.01, sizes.shape).astype(np.float32)

    small, medium, large = choose_sizes(sizes, 320, 2, seed=0)

    assert small == pytest.approx(np.array([[0.05, 0.07]] * 2), rel=0.02)
    assert large == pytest.approx(np.array([[0.5, 0.4]] * 2), rel=0.02)
    assert medium.shape == (2, 2)  # squares, because no box has such a size


def test_default_boxes_exist_without_training_boxes() -> None:
    assert [one.shape for one in choose_sizes(np.zeros((0, 2), np.float32), 320, 3, seed=0)] == [(3, 2)] * 3


def test_default_boxes_are_laid_out_by_stride_row_column_and_size() -> None:
    sizes = tuple(np.full((2, 2), value, np.float32) for value in (0.1, 0.2, 0.4))

    boxes = lay_out(sizes, 64)

    assert boxes.shape == ((64 + 16 + 4) * 2, 4)
    assert boxes[0] == pytest.approx([1 / 16, 1 / 16, 0.1, 0.1])
    assert boxes[2] == pytest.approx([3 / 16, 1 / 16, 0.1, 0.1])
    assert boxes[-1] == pytest.approx([0.75, 0.75, 0.4, 0.4])


def test_decoding_inverts_encoding() -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 0.5, (20, 2))
    boxes = torch.from_numpy(np.concatenate([corners, corners + generator.uniform(0.05, 0.5, (20, 2))], axis=1))
    defaults = torch.from_numpy(generator.uniform(0.1, 0.9, (20, 4)))

    assert torch.allclose(decode(encode(boxes, defaults), defaults), boxes)


def test_views_of_an_image_are_the_same_each_time_and_differ_from_one_another() -> None:
    views = [draw_view(SHA256, number, CHOICES) for number in range(6)]

    assert views == [draw_view(SHA256, number, CHOICES) for number in range(6)]
    assert views[0] == WHOLE
    assert len(set(views)) == 6


@pytest.mark.parametrize("number", range(8))
def test_boxes_follow_the_pixels_of_a_view(number: int) -> None:
    view = draw_view(SHA256, number, CHOICES)
    pixels = np.zeros((320, 320, 3), dtype=np.uint8)
    pixels[120:180, 100:220] = 255
    box = np.array([[100 / 320, 120 / 320, 220 / 320, 180 / 320]], dtype=np.float32)

    seen = view_pixels(pixels, View(view.window, view.flipped, (1.0, 1.0, 1.0)), 160).mean(axis=2)
    (moved,), (is_visible,) = view_boxes(box, view, 160)

    grown = np.zeros((160, 160), dtype=bool)
    x_min, y_min, x_max, y_max = np.rint(moved * 160).astype(int)
    grown[y_min:y_max, x_min:x_max] = True
    bright = seen > 200
    assert is_visible
    assert (grown & bright).sum() / (grown | bright).sum() > 0.85


def test_a_box_that_is_mostly_outside_a_view_is_not_visible() -> None:
    boxes = np.array([[0.0, 0.0, 0.3, 0.3], [0.4, 0.4, 0.6, 0.6]], dtype=np.float32)

    moved, visible = view_boxes(boxes, View((0.25, 0.25, 1.0, 1.0), flipped=False, colours=(1, 1, 1)), 320)

    assert visible.tolist() == [False, True]
    assert moved[1] == pytest.approx([0.2, 0.2, 0.15 / 0.75 + 0.2667, 0.4667], abs=1e-3)


def test_overconfident_scores_are_calibrated() -> None:
    generator = np.random.default_rng(0)
    truth, found = [], []
    box, wrong = np.array([[0.0, 0, 10, 10]]), np.array([[50.0, 50, 60, 60]])
    for _ in range(400):
        truth.append(Objects(box, np.zeros(1, dtype=np.int64), np.ones(1)))
        is_right = generator.random() < 0.6
        found.append(Objects(box if is_right else wrong, np.zeros(1, dtype=np.int64), np.array([0.95])))
    predictions = ObjectPredictions(tuple(map(str, range(400))), ("cell",), tuple(truth), tuple(found), (0.5,))

    calibration, _ = calibrate(predictions)

    logit = np.log(0.95 / 0.05)
    assert 1 / (1 + np.exp(-(calibration.slopes[0] * logit + calibration.shifts[0]))) == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(
    ("scores", "hits", "positives", "threshold"),
    [
        ([], [], 10, 0.5),
        ([0.9, 0.8, 0.2], [True, True, False], 3, 0.5),
        ([0.9, 0.8, 0.7, 0.6, 0.2], [True] * 4 + [False], 5, 0.4),
        ([0.9, 0.2, 0.1], [True, False, False], 5, 0.55),
    ],
)
def test_thresholds_have_the_best_f1(scores: list[float], hits: list[bool], positives: int, threshold: float) -> None:
    chosen = best_threshold(np.array(scores, dtype=np.float64), np.array(hits, dtype=bool), positives)

    assert chosen == pytest.approx(threshold)


class _Runtime:
    """Counts how often it computes."""

    outputs = ("stride8", "stride16", "stride32")

    def __init__(self) -> None:
        self.count = 0

    def run_all(self, pixels: Any, outputs: Any) -> list[Array]:
        self.count += len(pixels)
        return [np.full((len(pixels), 2, 4 // side, 4 // side), pixels[0].max(), np.float16) for side in (1, 2, 4)]


def test_maps_are_computed_once_and_the_oldest_are_deleted(tmp_path: Path) -> None:
    cache, runtime = MapCache(tmp_path, "d", ((2, 4, 4), (2, 2, 2), (2, 1, 1))), _Runtime()
    keys = [f"{number:02d}" for number in range(10)]

    def compute(wanted: list[str]) -> None:
        cache.compute(
            wanted,
            model=lambda: runtime,  # type: ignore[arg-type, return-value]
            pixels=lambda batch: [np.full((4, 4, 3), int(key), np.uint8) for key in batch],
            threads=2,
        )

    compute(keys[:4])
    compute(keys)

    assert runtime.count == 10
    assert [one.shape for one in cache.load(keys[:3])] == [(3, 2, 4, 4), (3, 2, 2, 2), (3, 2, 1, 1)]
    damaged = next(tmp_path.rglob(f"{keys[0]}.npy"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    compute(keys)
    assert runtime.count == 11
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.npy"))
    cache.prune(size // 2)
    assert len(list(tmp_path.rglob("*.npy"))) == 5
