"""Converts the annotations of an archive to those of a dataset, once the stored image is known. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from vesta_common.media.rotated_boxes import rotated_box_of
from vesta_common.messages import copy_of, without
from vesta_contracts.common.v1 import Annotation, PixelPoint
from vesta_contracts.connection.v1 import IngestedMedia

from vesta_datasets.operations.incoming import Ingested
from vesta_datasets.task_types import DatasetTask


def converted_to(task: DatasetTask, ingested: Ingested) -> Ingested:
    """Returns an image of an archive with annotations of the task type, in pixels of the stored image.

    An image of another size than the archive states is rejected, because its shapes would be in wrong places.
    """
    entry, result, _ = ingested
    if entry.annotations is None or result.reason:
        return ingested
    width_px, height_px = result.media.width_px, result.media.height_px
    stated = (entry.width_px, entry.height_px)
    has_shapes = any(not annotation.HasField("image_label") for annotation in entry.annotations)
    if has_shapes and all(stated) and stated != (width_px, height_px):
        why = (
            f"has {width_px} x {height_px} pixels, but the archive states {stated[0]} x {stated[1]}, which its shapes refer to; an image "
            "that a camera has turned counts as it is displayed"
        )
        return Ingested(entry, IngestedMedia(reason="SIZE_MISMATCH", message=why))
    annotations = entry.annotations
    if entry.is_normalized:
        annotations = [in_pixels(annotation, width_px, height_px) for annotation in annotations]
    if entry.has_rotated_boxes:
        annotations = [as_rotated_box(annotation) for annotation in annotations]
    annotations = task.imported(annotations)
    if annotations is entry.annotations:
        return ingested
    return ingested._replace(entry=replace(entry, annotations=annotations))


def in_pixels(annotation: Annotation, width_px: int, height_px: int) -> Annotation:
    """Returns a box, polygon or keypoints whose coordinates are shares of the width and height of the image in pixels."""
    scaled = copy_of(annotation)
    if scaled.HasField("box"):
        scaled.box.x_min_px *= width_px
        scaled.box.x_max_px *= width_px
        scaled.box.y_min_px *= height_px
        scaled.box.y_max_px *= height_px
    for point in _points(scaled):
        point.x_px *= width_px
        point.y_px *= height_px
    return scaled


def as_rotated_box(annotation: Annotation) -> Annotation:
    """Returns an annotation with a polygon of four points, in pixels, as the rotated box with these corners; others unchanged."""
    corners = [(point.x_px, point.y_px) for point in annotation.polygon.outline.points]
    if len(corners) != 4:
        return annotation
    turned = without(annotation, "polygon")
    turned.rotated_box.CopyFrom(rotated_box_of(corners))
    return turned


def _points(annotation: Annotation) -> Iterator[PixelPoint]:
    for ring in (annotation.polygon.outline, *annotation.polygon.holes):
        yield from ring.points
    yield from (keypoint.point for keypoint in annotation.keypoints.points)
