"""Writes the YOLO layout; see `yolo.py` and `yolo_rows.py`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from vesta_common.media.rotated_boxes import polygon_of
from vesta_contracts.common.v1 import Annotation, Visibility

from vesta_datasets.archives.layout import ArchivedItem, cannot_hold
from vesta_datasets.archives.yolo_rows import ROTATED_TASK
from vesta_datasets.archives.zip_writer import ZipWriter

_FOLDERS: Final = {"VALIDATION": "val", "TEST": "test"}
_SHAPES: Final = ("box", "polygon", "rotated_box", "keypoints")
_ALONE: Final = ("keypoints", "rotated_box")
"""Shapes that an archive has alone."""
_VISIBILITIES: Final = {Visibility.VISIBILITY_OCCLUDED: 1, Visibility.VISIBILITY_VISIBLE: 2}


class YoloWriter:
    """Writes images with boxes, polygons, rotated boxes or keypoints to an archive. `finish` writes data.yaml.

    Args:
        concepts: all concepts that the images can have, in the order of the classes, with the names of their keypoints. The rows of an
            archive with keypoints have places for those of the concept with the most.
    """

    def __init__(self, archive: ZipWriter, concepts: Mapping[str, Sequence[str]]) -> None:
        self._archive = archive
        self._class_of = {concept: number for number, concept in enumerate(concepts)}
        self._keypoints = concepts
        self._point_count = max(map(len, concepts.values()), default=0)
        self._splits: set[str] = set()
        self._shapes: set[str] = set()

    def __enter__(self) -> "YoloWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Needs no temporary files."""

    def add(self, item: ArchivedItem) -> None:
        """Writes an image.

        Raises:
            FailedPrecondition: FORMAT_CANNOT_REPRESENT, some images have keypoints or rotated boxes, and others have other shapes.
        """
        split = _FOLDERS.get(item.split, "train")
        self._splits.add(split)
        self._shapes |= {str(one.WhichOneof("shape")) for one in item.annotations or ()}
        if self._shapes & {*_ALONE} and len(self._shapes) > 1:
            shapes = " and ".join(sorted(self._shapes)).replace("_", " ")
            raise cannot_hold(item, f"other shapes than earlier items: {shapes}", _HOLDS)
        for annotation in item.annotations or ():
            unknown = {one.label for one in annotation.keypoints.points} - {*self._keypoints[annotation.concept]}
            if unknown:
                raise cannot_hold(
                    item, f"the keypoint {min(unknown)!r}, which {annotation.concept} has no longer", _HOLDS
                )
        rows = "".join(
            f"{self._class_of[one.concept]} {' '.join(self._shares(one, item))}\n" for one in item.annotations or ()
        )
        self._archive.write(item.path, f"images/{split}/{item.path.name}")
        self._archive.writestr(f"labels/{split}/{item.path.stem}.txt", rows)

    def finish(self) -> None:
        """Writes data.yaml."""
        lines = [f"{split}: images/{split}" for split in ("train", "val", "test") if split in self._splits]
        lines += [f"task: {ROTATED_TASK}"] if "rotated_box" in self._shapes else []
        names = [f"  {number}: {json.dumps(name)}" for name, number in self._class_of.items()]
        if "keypoints" in self._shapes:
            own = self._keypoints.items()
            names += [f"kpt_shape: [{self._point_count}, 3]", "kpt_names:"]
            names += [f"  {self._class_of[concept]}: {json.dumps(list(points))}" for concept, points in own]
        self._archive.writestr("data.yaml", "\n".join([*lines, "names:", *names, ""]))

    def _shares(self, annotation: Annotation, item: ArchivedItem) -> Iterable[str]:
        if annotation.HasField("keypoints"):
            names = self._keypoints[annotation.concept]
            return _keypoint_values(annotation, item, names, self._point_count)
        return (repr(value) for value in _values(annotation, item))


_HOLDS: Final = (
    "YOLO represents boxes and polygons without holes, or rotated boxes, or keypoints, within the image and without attributes. "
    "COCO represents more"
)


def check_for_yolo(item: ArchivedItem) -> None:
    """Rejects annotations that YOLO cannot represent."""
    for annotation in item.annotations or ():
        shape = str(annotation.WhichOneof("shape"))
        if shape not in _SHAPES:
            raise cannot_hold(item, f"a {shape.replace('_', ' ')}", _HOLDS)
        if annotation.polygon.holes:
            raise cannot_hold(item, "a polygon with holes", _HOLDS)
        if annotation.attributes:
            raise cannot_hold(item, f"an annotation with the attribute {min(annotation.attributes)!r}", _HOLDS)
        if any(point.visibility not in _VISIBILITIES for point in annotation.keypoints.points):
            raise cannot_hold(item, "a keypoint that is not in the image", _HOLDS)
    if len({annotation.WhichOneof("shape") for annotation in item.annotations or ()}) > 1:
        raise cannot_hold(item, "shapes of several kinds", _HOLDS)
    if not all(0 <= value <= 1 for annotation in item.annotations or () for value in _corners(annotation, item)):
        raise cannot_hold(item, "a shape that exceeds the image", "YOLO represents shapes within the image")


def _corners(annotation: Annotation, item: ArchivedItem) -> Iterable[float]:
    """Returns the coordinates of the corners as shares of the width and height of the image."""
    box, points = annotation.box, polygon_of(annotation).outline.points
    xs, ys = [box.x_min_px, box.x_max_px], [box.y_min_px, box.y_max_px]
    placed = [*points, *(one.point for one in annotation.keypoints.points)]
    xs += [point.x_px for point in placed]
    ys += [point.y_px for point in placed]
    return (*(x / item.width_px for x in xs), *(y / item.height_px for y in ys))


def _keypoint_values(annotation: Annotation, item: ArchivedItem, names: Sequence[str], count: int) -> Iterable[str]:
    """Yields the values of a row: the box around the points, then x, y and visibility of each place; zeros if it has no point."""
    found = {point.label: point for point in annotation.keypoints.points}
    xs = [one.point.x_px / item.width_px for one in found.values()] or [0.0]
    ys = [one.point.y_px / item.height_px for one in found.values()] or [0.0]
    box = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys))
    yield from map(repr, box)
    for name in (*names, *[""] * (count - len(names))):
        if name in found:
            point = found[name].point
            yield repr(point.x_px / item.width_px)
            yield repr(point.y_px / item.height_px)
            yield str(_VISIBILITIES[found[name].visibility])
        else:
            yield "0 0 0"


def _values(annotation: Annotation, item: ArchivedItem) -> list[float]:
    """Returns the values of a row: coordinates as shares of the width and height of the image."""
    width_px, height_px = item.width_px, item.height_px
    if points := polygon_of(annotation).outline.points:
        return [value for point in points for value in (point.x_px / width_px, point.y_px / height_px)]
    box = annotation.box
    return [
        (box.x_min_px + box.x_max_px) / 2 / width_px,
        (box.y_min_px + box.y_max_px) / 2 / height_px,
        (box.x_max_px - box.x_min_px) / width_px,
        (box.y_max_px - box.y_min_px) / height_px,
    ]
