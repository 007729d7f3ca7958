"""Writes the COCO layout in bounded memory.

Shapes are in annotations/instances_*.json, keypoints in person_keypoints_*.json, image labels in labels_*.json, and images in images/. An
archive has the files of its annotations alone, because Datumaro reads instances_*.json instead of the others, even if it is empty.
Attributes are written as CVAT and Datumaro do. The entries of the annotation files are kept in temporary files until all images are
written.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import count, pairwise
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipInfo

import numpy as np
from vesta_common.media.crowds import is_crowd
from vesta_contracts.common.v1 import Annotation, Mask, PixelPoint, Visibility

from vesta_datasets.archives.layout import ABSENT_KEYPOINTS, ROTATION, ArchivedItem, cannot_hold
from vesta_datasets.archives.masks import mask_of, pixels_of
from vesta_datasets.archives.zip_writer import ZipWriter

_INSTANCES = "instances"
_KEYPOINTS = "person_keypoints"
_TASK_OF = {"image_label": "labels", "keypoints": _KEYPOINTS}
_IMAGES = "images"
_HEADER = {
    "licenses": [{"name": "", "id": 0, "url": ""}],
    "info": dict.fromkeys(("contributor", "date_created", "description", "url", "version", "year"), ""),
}
_IMAGE = {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}


class CocoWriter:
    """Writes labelled images to an archive. `finish` writes the annotation files. On exit, the temporary files are deleted.

    Args:
        concepts: all concepts that the images can have, in the order of the categories.
        keypoints: the names of the keypoints of concepts that have any.
        folder: for temporary files.
    """

    def __init__(
        self, archive: ZipWriter, concepts: Sequence[str], keypoints: Mapping[str, Sequence[str]], folder: Path
    ) -> None:
        self._archive = archive
        self._keypoints = keypoints
        self._category_of = {concept: number for number, concept in enumerate(concepts, 1)}
        self._folder = folder
        self._entries: dict[tuple[str, str], _Entries] = {}
        self._files = ExitStack()
        self._image_ids = count(1)
        self._annotation_ids = count(1)

    def __enter__(self) -> "CocoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, item: ArchivedItem) -> None:
        """Writes an image."""
        split, image_id = item.split.lower() or "train", next(self._image_ids)
        self._archive.write(item.path, f"{_IMAGES}/{split}/{item.path.name}")
        size = {"width": item.width_px, "height": item.height_px}
        self._of(split, _IMAGES).add({"id": image_id, **size, "file_name": item.path.name, **_IMAGE})
        for annotation in item.annotations or ():
            task = _TASK_OF.get(str(annotation.WhichOneof("shape")), _INSTANCES)
            ids = {"id": next(self._annotation_ids), "image_id": image_id}
            category = {"category_id": self._category_of[annotation.concept]}
            shape = self._shape_of(annotation)
            self._of(split, task).add({**ids, **category, **shape, **_attributes_of(annotation)})

    def finish(self) -> None:
        """Writes the annotation files, one per split and task with annotations. Each lists all images of the split."""
        tasks = {task for _, task in self._entries} - {_IMAGES} or {_INSTANCES}
        for task in sorted(tasks):
            header = json.dumps({**_HEADER, "categories": self._categories(task)}, separators=(",", ":"))[:-1].encode()
            for split in sorted({split for split, _ in self._entries}):
                name = ZipInfo(f"annotations/{task}_{split}.json")
                name.compress_type = ZIP_DEFLATED
                with self._archive.open(name, "w", force_zip64=True) as file:
                    file.write(header + b',"images":[')
                    self._of(split, _IMAGES).copy_to(file)
                    file.write(b'],"annotations":[')
                    self._of(split, task).copy_to(file)
                    file.write(b"]}")

    def _categories(self, task: str) -> list[dict[str, Any]]:
        """Returns the categories of a file. Where there are keypoints, readers expect each category to have some, or an empty list."""
        return [
            {"id": number, "name": name, "supercategory": "", **self._skeleton(name, is_required=task == _KEYPOINTS)}
            for name, number in self._category_of.items()
        ]

    def _skeleton(self, concept: str, *, is_required: bool) -> dict[str, Any]:
        names = self._keypoints.get(concept, ())
        return {"keypoints": list(names), "skeleton": []} if names or is_required else {}

    def _shape_of(self, annotation: Annotation) -> dict[str, Any]:
        if annotation.HasField("keypoints"):
            return _keypoints(annotation, self._keypoints.get(annotation.concept, ()))
        return _shape_of(annotation)

    def _of(self, split: str, kind: str) -> "_Entries":
        if (split, kind) not in self._entries:
            file = self._files.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - closed on exit
            self._entries[split, kind] = _Entries(file)
        return self._entries[split, kind]


class _Entries:
    """Elements of a JSON list, in a temporary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, entry: dict[str, Any]) -> None:
        separator = b"," if self._file.tell() else b""
        self._file.write(separator + json.dumps(entry, separators=(",", ":")).encode())

    def copy_to(self, target: IO[bytes]) -> None:
        self._file.seek(0)
        shutil.copyfileobj(self._file, target)


def check_for_coco(item: ArchivedItem) -> None:
    """Rejects annotations that COCO cannot represent."""
    holds = "COCO represents image labels, boxes, rotated boxes, masks, polygons without holes and keypoints"
    for annotation in item.annotations or ():
        shape = str(annotation.WhichOneof("shape"))
        if shape not in {"image_label", "box", "rotated_box", "mask", "polygon", "keypoints"}:
            raise cannot_hold(item, f"a {shape.replace('_', ' ')}", holds)
        if annotation.polygon.holes:
            raise cannot_hold(item, "a polygon with holes", holds)
        if shape == "rotated_box" and ROTATION in annotation.attributes:
            raise cannot_hold(item, f"a rotated box with the attribute {ROTATION!r}", holds)
        if shape == "mask" and not any(annotation.mask.runs_px[1::2]):
            raise cannot_hold(item, "a mask without pixels", holds)


def _attributes_of(annotation: Annotation) -> dict[str, Any]:
    """Returns the attributes. A crowd is one too, because `iscrowd` may say only that a shape is run lengths (`coco.py`)."""
    attributes: dict[str, str | float] = {**annotation.attributes}
    crowd = {"iscrowd": 1} if is_crowd(annotation) else {}
    if annotation.HasField("rotated_box"):
        attributes[ROTATION] = annotation.rotated_box.angle_deg % 360
    return {**crowd, **({"attributes": attributes} if attributes else {})}


def _keypoints(annotation: Annotation, names: Sequence[str]) -> dict[str, Any]:
    """Returns the keypoints in the order of the skeleton: x, y and 2 if visible, 1 if occluded, three zeros if not in the image."""
    found = {point.label: point for point in annotation.keypoints.points}
    flat: list[float] = []
    absent = []
    for name in names:
        point = found.get(name)
        if point is None or point.visibility == Visibility.VISIBILITY_ABSENT:
            flat += [0, 0, 0]
            absent += [name] if point is not None else []
        else:
            is_occluded = point.visibility == Visibility.VISIBILITY_OCCLUDED
            flat += [point.point.x_px, point.point.y_px, 1 if is_occluded else 2]
    seen = [(x, y) for x, y, visible in zip(flat[::3], flat[1::3], flat[2::3], strict=True) if visible]
    xs, ys = [x for x, _ in seen] or [0.0], [y for _, y in seen] or [0.0]
    corners = (min(xs), min(ys), max(xs), max(ys))
    area = (corners[2] - corners[0]) * (corners[3] - corners[1])
    shape = {"keypoints": flat, "num_keypoints": len(seen), **_instance([], area, corners)}
    return {**shape, ABSENT_KEYPOINTS: absent} if absent else shape


def _shape_of(annotation: Annotation) -> dict[str, Any]:
    """Returns the segmentation, the area and the box (x, y, width, height) of a shape; nothing for an image label."""
    match annotation.WhichOneof("shape"):
        case "box":
            box = annotation.box
            corners = (box.x_min_px, box.y_min_px, box.x_max_px, box.y_max_px)
            return _instance([], (corners[2] - corners[0]) * (corners[3] - corners[1]), corners)
        case "rotated_box":  # the box before its rotation
            turned, width, height = (
                annotation.rotated_box,
                annotation.rotated_box.width_px,
                annotation.rotated_box.height_px,
            )
            x, y = turned.x_center_px - width / 2, turned.y_center_px - height / 2
            return _instance([], width * height, (x, y, x + width, y + height))
        case "polygon":
            points = annotation.polygon.outline.points
            flat = [value for point in points for value in (point.x_px, point.y_px)]
            corners = (min(flat[::2]), min(flat[1::2]), max(flat[::2]), max(flat[1::2]))
            return _instance([flat], _area(points), corners)
        case "mask":
            return _mask(annotation.mask)
        case _:
            return {}


def _mask(mask: Mask) -> dict[str, Any]:
    """Encodes a mask as the run lengths of its columns."""
    pixels = pixels_of(mask)
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    corners = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    runs = list(mask_of(pixels.T).runs_px)
    segmentation = {"counts": runs, "size": [mask.height_px, mask.width_px]}
    return _instance(segmentation, sum(runs[1::2]), corners)


def _instance(segmentation: Any, area: float, corners: tuple[float, ...]) -> dict[str, Any]:
    x_min, y_min, x_max, y_max = corners
    box = [float(value) for value in (x_min, y_min, x_max - x_min, y_max - y_min)]
    return {"segmentation": segmentation, "area": float(area), "bbox": box, "iscrowd": 0}


def _area(points: Sequence[PixelPoint]) -> float:
    """Returns the area of a polygon (https://en.wikipedia.org/wiki/Shoelace_formula)."""
    edges = pairwise([*points, *points[:1]])
    return abs(sum(one.x_px * other.y_px - other.x_px * one.y_px for one, other in edges)) / 2
