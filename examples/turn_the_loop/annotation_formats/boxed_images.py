"""What the formats have in common: the images of a folder, the splits by the names of folders, and boxes within images."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from boxes import SizePx, clipped, image_size
from photographs import SPLITS, SUFFIXES, Photograph, Photographs, set_name
from vesta_contracts.common.v1 import TaskType

RawBox = tuple[str, Sequence[float]]
"""A concept with x_min, y_min, x_max, y_max in pixels."""


def image_files(folder: Path) -> list[Path]:
    """Returns the image files below a folder, without hidden ones, in order."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def is_test(path: Path, folder: Path) -> bool:
    """Whether a folder or file name in the path stands for the test split: `test`, `test2017`, `instances_test2017`."""
    parts = [*path.relative_to(folder).parts[:-1], path.stem]
    words = [word for part in parts for word in re.split(r"[_. -]", re.sub(r"\d+$", "", part.lower()))]
    return next((SPLITS[word] for word in words if word in SPLITS), "train") == "test"


def boxed_image(path: Path, raw_boxes: Iterable[RawBox], size_px: SizePx | None = None) -> Photograph | None:
    """Returns an image with the parts of its boxes that are within it; None if the file is not an image."""
    try:
        size_px = size_px or image_size(path)
    except OSError:
        return None
    boxes = [clipped(concept, corners, size_px) for concept, corners in raw_boxes]
    return Photograph(path, tuple(box for box in boxes if box is not None))


def boxed_images(
    folder: Path, pool: Iterable[Photograph | None], test: Iterable[Photograph | None]
) -> Photographs | None:
    """Returns the data set; None if no image has a box."""
    found = Photographs(
        set_name(folder),
        [image for image in pool if image],
        [image for image in test if image],
        TaskType.TASK_TYPE_DETECTION,
    )
    return found if found.labels else None
