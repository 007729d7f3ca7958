"""Masks in COCO results: polygons or run lengths, checked against their images, and encoded for faster-coco-eval."""

import math
from collections.abc import Mapping
from typing import Any

POLYGON_NUMBERS_MIN = 6


def check_mask(place: int, entry: Any, sizes: Mapping[int | str, tuple[int, int]]) -> dict[str, Any]:
    """Returns the mask of a result.

    Args:
        sizes: height and width of the images, by everything by which a result may refer to them.

    Raises:
        KeyError: the result has no segmentation.
        ValueError: the segmentation is invalid, empty or of another size than its image.
    """
    mask, (height, width) = entry["segmentation"], sizes[entry["image_id"]]
    if isinstance(mask, list):
        if not mask or not all(map(_is_polygon, mask)):
            raise ValueError(
                f"result {place} needs a segmentation of polygons, each a list x, y, x, y … of at least three points"
            )
        return {"segmentation": mask}
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), list | str):
        raise ValueError(  # noqa: TRY004 - the content of a file
            f"result {place} needs a segmentation: a list of polygons, or run lengths with size and counts"
        )
    if mask.get("size") != [height, width]:
        raise ValueError(
            f"result {place} has a segmentation of the size {mask.get('size')}, but its image has [{height}, {width}]"
        )
    counts = mask["counts"]
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != height * width:
            raise ValueError(f"result {place} has a segmentation whose runs do not add to {height * width} pixels")
        if not any(counts[1::2]):
            raise ValueError(f"result {place} has a segmentation without pixels; leave it out")
    return {"segmentation": {"size": [height, width], "counts": counts}}


def encoded(result: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Returns a result with its mask as compressed run lengths.

    Args:
        size: height and width of the image.
    """
    from faster_coco_eval import mask as coco_mask

    mask, (height, width) = result["segmentation"], size
    if isinstance(mask, list):
        mask = coco_mask.merge(coco_mask.frPyObjects(mask, height, width))
    elif isinstance(mask["counts"], list):
        mask = coco_mask.frPyObjects(mask, height, width)
    return {**result, "segmentation": mask}


def _is_polygon(points: Any) -> bool:
    return (
        isinstance(points, list)
        and len(points) >= POLYGON_NUMBERS_MIN
        and len(points) % 2 == 0
        and all(isinstance(each, int | float) and math.isfinite(each) for each in points)
    )
