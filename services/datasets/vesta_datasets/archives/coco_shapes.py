"""Converts objects of COCO annotation files to annotations. Pure.

The format: https://cocodataset.org/#format-data. Attributes are those of CVAT and Datumaro.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks
from vesta_common.media.image_formats import IMAGE_PIXELS_MAX
from vesta_common.media.rotated_boxes import normalized_angle
from vesta_contracts.common.v1 import (
    Annotation,
    ImageLabel,
    Keypoint,
    Keypoints,
    PixelBox,
    PixelPoint,
    Polygon,
    Ring,
    RotatedBox,
    Visibility,
)

from vesta_datasets.archives.layout import ABSENT_KEYPOINTS, ROTATION
from vesta_datasets.archives.masks import mask_of
from vesta_datasets.archives.run_lengths import RunsError, uncompressed

_VISIBILITIES: Final = {1: Visibility.VISIBILITY_OCCLUDED, 2: Visibility.VISIBILITY_VISIBLE}

SizeOf = Callable[[], tuple[int, int] | None]


class FlawedObjectError(ValueError):
    """An object cannot be converted. The message follows the words "annotation 7"."""


class Category(NamedTuple):
    """A category of an annotation file.

    Attributes:
        keypoints: the names of its keypoints.
    """

    name: str
    keypoints: Sequence[str]


def annotation_of(
    said: Mapping[str, Any], category: Category, shapes: Collection[str], size_of: SizeOf, *, labels_images: bool
) -> Annotation:
    """Returns an object as an annotation.

    Args:
        shapes: the fields of the oneof `shape` that the importing dataset allows. Of the shapes of an object, it gets the first allowed one
            of: keypoints, segmentation, box, or rotated box if it has a rotation; the first one if none is allowed.
        size_of: returns height and width of the image, or None if they are unknown.
        labels_images: whether an object without a shape is a label of the image.

    Raises:
        FlawedObjectError: the object has no shape, or an invalid one.
    """
    readers: list[tuple[str, Callable[[], Annotation]]] = []
    if said.get("keypoints"):
        readers.append(("keypoints", lambda: _keypoints(said, category)))
    if segmentation := said.get("segmentation"):
        is_one = isinstance(segmentation, list) and len(segmentation) == 1
        kind = "polygon" if is_one and ("polygon" in shapes or "mask" not in shapes) else "mask"
        readers.append((kind, lambda: _segment(segmentation, kind, size_of)))
    rotation = _rotation(said)
    if said.get("bbox") and rotation:
        readers.append(("rotated_box", lambda: Annotation(rotated_box=_rotated_box(said["bbox"], rotation))))
    elif said.get("bbox"):
        readers.append(("box", lambda: Annotation(box=_box(said["bbox"]))))
    if not readers and labels_images:
        readers.append(("image_label", lambda: Annotation(image_label=ImageLabel())))
    if not readers:
        raise FlawedObjectError("has no segmentation, bbox or keypoints")
    read = next((read for kind, read in readers if kind in shapes), readers[0][1])
    annotation = read()
    annotation.concept = category.name
    _add_attributes(annotation, said)
    return annotation


def _add_attributes(annotation: Annotation, said: Mapping[str, Any]) -> None:
    attributes = said.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise FlawedObjectError("has attributes that are not an object")
    for name, value in attributes.items():
        if (
            name == ROTATION
            and type(value) in (int, float)
            and annotation.WhichOneof("shape") in ("box", "rotated_box")
        ):
            continue  # part of the shape; CVAT writes 0 for boxes
        text = str(value).lower() if isinstance(value, bool) else value
        annotation.attributes[name] = text if isinstance(text, str) else repr(text)


def _box(values: Any) -> PixelBox:
    x, y, width, height = _numbers(values, "bbox", 4)
    return PixelBox(x_min_px=x, y_min_px=y, x_max_px=x + width, y_max_px=y + height)


def _rotation(said: Mapping[str, Any]) -> float:
    """Returns the rotation of the box of an object in degrees, clockwise on screen, as CVAT writes it; 0 if it has none."""
    attributes = said.get("attributes")
    rotation = attributes.get(ROTATION) if isinstance(attributes, dict) else None
    if type(rotation) not in (int, float):  # text is an attribute of another meaning
        return 0.0
    (angle,) = _numbers([rotation], f"attributes.{ROTATION}", 1)
    return normalized_angle(angle)


def _rotated_box(values: Any, angle_deg: float) -> RotatedBox:
    x, y, width, height = _numbers(values, "bbox", 4)
    return RotatedBox(
        x_center_px=x + width / 2, y_center_px=y + height / 2, width_px=width, height_px=height, angle_deg=angle_deg
    )


def _segment(segmentation: Any, kind: str, size_of: SizeOf) -> Annotation:
    if isinstance(segmentation, dict):
        return Annotation(mask=mask_of(_decoded(segmentation)))
    if not isinstance(segmentation, list):
        raise FlawedObjectError(
            "has a segmentation that is neither a list of polygons nor an object with counts and size"
        )
    polygons = [_numbers(part, "segmentation", None) for part in segmentation]
    if any(len(points) < 6 or len(points) % 2 for points in polygons):
        raise FlawedObjectError("has a polygon that is not a list of at least three points x, y")
    if kind == "polygon":
        (points,) = polygons
        ring = Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in zip(points[::2], points[1::2], strict=True)])
        return Annotation(polygon=Polygon(outline=ring))
    image_hw = size_of()
    if image_hw is None or math.prod(image_hw) > IMAGE_PIXELS_MAX:
        raise FlawedObjectError("has several polygons, but the size of its image is unknown or too large")
    height_px, width_px = image_hw
    if any(abs(value) > 4 * max(image_hw) for points in polygons for value in points):
        raise FlawedObjectError(f"has a polygon outside of the image of {width_px} x {height_px} pixels")
    union = coco_masks.merge(coco_masks.frPyObjects(polygons, height_px, width_px))
    return Annotation(mask=mask_of(_decoded({"size": union["size"], "counts": union["counts"].decode()})))


def _decoded(segmentation: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Returns `(H, W)` pixels of run lengths, which go down the columns."""
    height_px, width_px = (int(value) for value in _numbers(segmentation.get("size"), "segmentation.size", 2))
    if min(height_px, width_px) < 1 or height_px * width_px > IMAGE_PIXELS_MAX:
        raise FlawedObjectError(
            f"has a mask of {width_px} x {height_px} pixels, the maximum is {IMAGE_PIXELS_MAX} pixels"
        )
    counts = segmentation.get("counts")
    try:
        runs = uncompressed(counts) if isinstance(counts, str) else [int(run) for run in counts or ()]
    except (RunsError, TypeError, ValueError) as error:
        raise FlawedObjectError("has run lengths that are neither numbers nor valid compressed text") from error
    if any(run < 0 for run in runs) or sum(runs) != height_px * width_px:
        raise FlawedObjectError(f"has run lengths that cover {sum(runs)} pixels of {width_px} x {height_px}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width_px, height_px).T


def _keypoints(said: Mapping[str, Any], category: Category) -> Annotation:
    values = _numbers(said["keypoints"], "keypoints", 3 * len(category.keypoints))
    points = []
    for name, x, y, visible in zip(category.keypoints, values[::3], values[1::3], values[2::3], strict=True):
        if visible not in (0, 1, 2):
            raise FlawedObjectError(f"has the keypoint {name!r} with the visibility {visible}; use 0, 1 or 2")
        if visible:
            point = PixelPoint(x_px=x, y_px=y)
            points.append(Keypoint(label=name, point=point, visibility=_VISIBILITIES[int(visible)]))
    absent = [name for name in said.get(ABSENT_KEYPOINTS) or () if isinstance(name, str)]
    points += [Keypoint(label=name, visibility=Visibility.VISIBILITY_ABSENT) for name in absent]
    return Annotation(keypoints=Keypoints(points=points))


def _numbers(values: Any, field: str, count: int | None) -> list[float]:
    """Returns the values of a list of finite numbers."""
    is_list = isinstance(values, list) and (count is None or len(values) == count)
    if not is_list or not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        wanted = "finite numbers" if count is None else f"{count} finite numbers"
        raise FlawedObjectError(f"has a {field} that is not a list of {wanted}")
    return [float(value) for value in values]
