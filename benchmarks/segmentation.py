"""Semantic segmentation: the quality of trained segmenters, and the time of their training.

The true pixels are the ellipses in the boxes of a folder (`data=FOLDER`), or otherwise of synthetic scenes, smaller objects on top.
The goal is that for the blood cells of BCCD after a minute on two cores; for other data it says little.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from boxes import SizePx, image_size
from control import RandomControl
from detection import boxed_images
from figures import Figure
from masks import joined
from photographs import Photograph, Photographs
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.common.v1 import PixelBox, TaskType
from vesta_local.platform import Platform
from world import set_up

GOAL, FLOOR = 0.65, 0.5


def with_ellipses(photographs: Photographs) -> Photographs:
    """Returns images with boxes with the pixels of the ellipses in them instead, one mask per concept."""
    return replace(
        photographs,
        pool=[_drawn(one) for one in photographs.pool],
        test=[_drawn(one) for one in photographs.test],
        task_type=TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION,
    )


def measure(owner: Vesta, platform: Platform, data: Path | None) -> Iterator[Figure]:
    """Yields `segmentation_miou` with all labels and the default recipe."""
    photographs = with_ellipses(boxed_images(data, platform.home.root))
    world = set_up(owner, platform.home.inbox, photographs, f"bench-{new_id()}")
    control = RandomControl(owner, world, len(photographs.pool))
    began = time.monotonic()
    quality = control.measure(len(photographs.pool)).quality
    if quality is not None:
        details = {
            "labels": float(len(photographs.pool)),
            "test_images": float(len(photographs.test)),
            "seconds": time.monotonic() - began,
        }
        yield Figure("segmentation_miou", quality, GOAL, lower=False, floor=FLOOR, details=details)


def _drawn(photograph: Photograph) -> Photograph:
    size_px = image_size(photograph.path)
    drawn = [(one.concept, _ellipse(one.box, size_px)) for one in photograph.annotations]
    return replace(photograph, annotations=tuple(joined(drawn)))


def _ellipse(box: PixelBox, size_px: SizePx) -> npt.NDArray[np.bool_]:
    """Returns `(height, width)`, true for pixels whose centre is in the ellipse."""
    down, across = np.ogrid[: size_px[1], : size_px[0]]
    x = (across + 0.5 - (box.x_min_px + box.x_max_px) / 2) / (box.x_max_px - box.x_min_px)
    y = (down + 0.5 - (box.y_min_px + box.y_max_px) / 2) / (box.y_max_px - box.y_min_px)
    inside: npt.NDArray[np.bool_] = x**2 + y**2 < 0.25
    return inside
