"""The true pixels of the benchmark of segmentation: ellipses in boxes, smaller ones on top."""

from pathlib import Path

import numpy as np
from masks import pixels_of
from photographs import Photograph, Photographs
from PIL import Image
from segmentation import with_ellipses
from vesta_contracts.common.v1 import Annotation, PixelBox, TaskType


def test_boxes_become_ellipses_and_smaller_ones_keep_their_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (60, 40)).save(path)
    cell = Annotation(concept="cell", box=PixelBox(x_min_px=10, y_min_px=5, x_max_px=50, y_max_px=35))
    nucleus = Annotation(concept="nucleus", box=PixelBox(x_min_px=20, y_min_px=10, x_max_px=30, y_max_px=20))
    boxed = Photographs("cells", [Photograph(path, (nucleus, cell))], [Photograph(path, ())])

    drawn = with_ellipses(boxed)

    assert drawn.task_type == TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION
    assert drawn.test[0].annotations == ()
    masks = {one.concept: pixels_of(one) for one in drawn.pool[0].annotations}
    assert masks["nucleus"].sum() == ellipse_area(10, 10)
    assert not (masks["cell"] & masks["nucleus"]).any()
    assert (masks["cell"] | masks["nucleus"]).sum() == ellipse_area(40, 30)


def ellipse_area(width_px: int, height_px: int) -> int:
    """The number of pixel centres in an ellipse that touches the sides of a box on the grid."""
    down, across = np.mgrid[:height_px, :width_px] + 0.5
    return int((((across / width_px) - 0.5) ** 2 + ((down / height_px) - 0.5) ** 2 < 0.25).sum())
