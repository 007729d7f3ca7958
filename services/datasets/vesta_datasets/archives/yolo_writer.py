"""Writes the YOLO layout; see `yolo.py`."""

import json
from collections.abc import Iterable, Sequence
from typing import Final

from vesta_contracts.common.v1 import Annotation

from vesta_datasets.archives.layout import ArchivedItem, cannot_hold
from vesta_datasets.archives.zip_writer import ZipWriter

_FOLDERS: Final = {"VALIDATION": "val", "TEST": "test"}


class YoloWriter:
    """Writes images with boxes or polygons to an archive. `finish` writes data.yaml.

    Args:
        concepts: all concepts that the images can have, in the order of the classes.
    """

    def __init__(self, archive: ZipWriter, concepts: Sequence[str]) -> None:
        self._archive = archive
        self._class_of = {concept: number for number, concept in enumerate(concepts)}
        self._splits: set[str] = set()

    def __enter__(self) -> "YoloWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Needs no temporary files."""

    def add(self, item: ArchivedItem) -> None:
        """Writes an image."""
        split = _FOLDERS.get(item.split, "train")
        self._splits.add(split)
        rows = "".join(
            f"{self._class_of[one.concept]} {' '.join(_shares(one, item))}\n" for one in item.annotations or ()
        )
        self._archive.write(item.path, f"images/{split}/{item.path.name}")
        self._archive.writestr(f"labels/{split}/{item.path.stem}.txt", rows)

    def finish(self) -> None:
        """Writes data.yaml."""
        lines = [f"{split}: images/{split}" for split in ("train", "val", "test") if split in self._splits]
        names = [f"  {number}: {json.dumps(name)}" for name, number in self._class_of.items()]
        self._archive.writestr("data.yaml", "\n".join([*lines, "names:", *names, ""]))


def check_for_yolo(item: ArchivedItem) -> None:
    """Rejects annotations that YOLO cannot represent."""
    holds = "YOLO represents boxes, or polygons without holes, and no attributes. COCO represents more"
    for annotation in item.annotations or ():
        shape = str(annotation.WhichOneof("shape"))
        if shape not in ("box", "polygon"):
            raise cannot_hold(item, f"a {shape.replace('_', ' ')}", holds)
        if annotation.polygon.holes:
            raise cannot_hold(item, "a polygon with holes", holds)
        if annotation.attributes:
            raise cannot_hold(item, f"an annotation with the attribute {min(annotation.attributes)!r}", holds)
    if len({annotation.WhichOneof("shape") for annotation in item.annotations or ()}) > 1:
        raise cannot_hold(item, "a box and a polygon", holds)
    if not all(0 <= value <= 1 for annotation in item.annotations or () for value in _corners(annotation, item)):
        raise cannot_hold(item, "a shape that exceeds the image", "YOLO represents shapes within the image")


def _corners(annotation: Annotation, item: ArchivedItem) -> Iterable[float]:
    """Returns the coordinates of the corners as shares of the width and height of the image."""
    box, points = annotation.box, annotation.polygon.outline.points
    xs, ys = [box.x_min_px, box.x_max_px], [box.y_min_px, box.y_max_px]
    xs += [point.x_px for point in points]
    ys += [point.y_px for point in points]
    return (*(x / item.width_px for x in xs), *(y / item.height_px for y in ys))


def _shares(annotation: Annotation, item: ArchivedItem) -> Iterable[str]:
    return (repr(value) for value in _values(annotation, item))


def _values(annotation: Annotation, item: ArchivedItem) -> list[float]:
    """Returns the values of a row: coordinates as shares of the width and height of the image."""
    width_px, height_px = item.width_px, item.height_px
    if annotation.HasField("polygon"):
        points = annotation.polygon.outline.points
        return [value for point in points for value in (point.x_px / width_px, point.y_px / height_px)]
    box = annotation.box
    return [
        (box.x_min_px + box.x_max_px) / 2 / width_px,
        (box.y_min_px + box.y_max_px) / 2 / height_px,
        (box.x_max_px - box.x_min_px) / width_px,
        (box.y_max_px - box.y_min_px) / height_px,
    ]
