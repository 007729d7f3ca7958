"""The synthetic scenes: what their boxes enclose, and that they are the same each time."""

import random
from pathlib import Path

import numpy as np
from boxes import corners, iou
from masks import pixels_of
from scenes import DEFAULT, HEIGHT_PX, WIDTH_PX, Digit, compose, write_scenes
from task_types import read_data, task_named


def test_a_box_encloses_the_ink_of_its_digit() -> None:
    ink = np.zeros((8, 8), np.float32)
    ink[2:6, 3:5] = 1
    for seed in range(20):
        scene = compose([Digit(ink, "1")] * DEFAULT.digits_max, random.Random(seed))
        dark = scene.pixels.max(axis=2) < 100
        inside = np.zeros_like(dark)
        for _, x, y, width, height in scene.boxes:
            assert 0 <= x < x + width <= WIDTH_PX
            assert 0 <= y < y + height <= HEIGHT_PX
            assert dark[y : y + height, x : x + width].mean() > 0.4
            inside[y : y + height, x : x + width] = True
        assert not (dark & ~inside).any()


def test_scenes_are_a_data_set_of_boxes_that_hardly_overlap(tmp_path: Path) -> None:
    name, found = read_data(write_scenes(tmp_path / "scenes", pool_count=40, test_count=10))
    assert (name, len(found.pool), len(found.test)) == ("COCO", 40, 10)
    assert found.labels == [str(digit) for digit in range(10)]
    counts = [len(one.annotations) for one in found.pool]
    assert 0 in counts
    assert max(counts) <= DEFAULT.digits_max
    masks = read_data(tmp_path / "scenes", task_named("instance-segmentation"))[1]
    for image, other in zip(found.pool, masks.pool, strict=True):
        for box, one in zip(image.annotations, other.annotations, strict=True):
            rows, columns = np.nonzero(pixels_of(one))
            assert box.concept == one.concept
            assert box.box.x_min_px <= columns.min() <= columns.max() < box.box.x_max_px
            assert box.box.y_min_px <= rows.min() <= rows.max() < box.box.y_max_px
    for one in found.pool:
        boxes = corners(one.annotations)
        assert (iou(boxes, boxes) - np.eye(len(boxes)) < 0.2).all()


def test_scenes_are_written_once_and_equal_for_equal_seeds(tmp_path: Path) -> None:
    one = write_scenes(tmp_path / "one", pool_count=3, test_count=1)
    other = write_scenes(tmp_path / "other", pool_count=3, test_count=1)
    files = [sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file()) for folder in (one, other)]
    assert files[0] == files[1]
    assert write_scenes(tmp_path / "one", pool_count=9) == one
    assert len(list(one.rglob("*.jpg"))) == 4
