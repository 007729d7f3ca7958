"""The COCO layout, read with Datumaro. `coco_writer.py` writes it.

Shapes are in annotations/instances_*.json, image labels in annotations/labels_*.json, and the images in images/.

This module runs in a sandboxed child process that can access only the archive's folder (`vesta_common.sandbox`). The service
itself does not import it.
"""

import logging
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import datumaro as dm
import numpy as np
from datumaro.util import mask_tools
from vesta_common.errors import InvalidArgument
from vesta_common.media.image_formats import IMAGE_BYTES_MAX, IMAGE_PIXELS_MAX, split_file
from vesta_contracts.common.v1 import Annotation, ImageLabel, Mask, PixelBox, PixelPoint, Polygon, Ring

from vesta_datasets.archives.coco_writer import TASKS, CocoWriter
from vesta_datasets.archives.layout import ArchivedItem, CocoImage, UnreadableArchiveError, parse_split
from vesta_datasets.archives.masks import mask_of
from vesta_datasets.archives.zip_writer import ZipWriter

_LISTED = "image_info"


def read_coco(folder: Path, _: None) -> list[CocoImage]:
    """Returns the images that the annotation files of an archive name, whether or not the archive contains them.

    Raises:
        UnreadableArchiveError: the archive has no annotation file, or Datumaro fails.
    """
    try:
        return _read(folder.resolve())
    except (UnreadableArchiveError, MemoryError):
        raise
    except Exception as error:
        raise UnreadableArchiveError(f"Datumaro cannot read the archive: {_innermost(error)}") from error


def warm_up() -> None:
    """Reads a small archive, so that the modules that Datumaro imports lazily are loaded."""
    # Affects only the child process: Datumaro logs a warning for each annotation file of another task.
    logging.disable(logging.WARNING)
    mask = Mask(height_px=2, width_px=2, runs_px=[1, 2, 1])
    ring = Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in ((0, 0), (1, 0), (1, 1))])
    shapes = [
        Annotation(concept="a", image_label=ImageLabel()),
        Annotation(concept="a", mask=mask),
        Annotation(concept="a", polygon=Polygon(outline=ring)),
        Annotation(concept="a", box=PixelBox(x_max_px=1, y_max_px=1)),
    ]
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        image = folder / "a.png"
        image.touch()
        with ZipWriter(folder / "a.zip") as archive, CocoWriter(archive, ["a"], folder) as writer:
            writer.add(ArchivedItem(image.name, image, "TRAIN", shapes, 2, 2))
            writer.finish()
        with ZipFile(folder / "a.zip") as written:
            written.extractall(folder / "out")
        _read((folder / "out").resolve())


def _read(root: Path) -> list[CocoImage]:
    annotations_of: dict[Path, list[Annotation | None] | None] = {}
    splits: dict[Path, str] = {}
    present = [task for task in (_LISTED, *TASKS) if any(root.rglob(f"{task}_*.json"))]
    if not present:
        raise UnreadableArchiveError(
            "the archive has neither annotations/instances_*.json nor annotations/labels_*.json"
        )
    for task in present:
        for part in _parts(root, task):
            names = [label.name for label in part.categories().get(dm.AnnotationType.label, ())]
            for item in part:
                path = Path(getattr(item.media, "path", "")).resolve()
                if path != root and path.is_relative_to(root):
                    splits[path] = parse_split(str(item.subset))
                    known = annotations_of.setdefault(path, None)
                    if task != _LISTED:
                        annotations_of[path] = [*(known or ()), *_objects(item, names)]
    return [
        CocoImage(str(path.relative_to(root)), splits[path], _serialised(annotations_of[path]))
        for path in sorted(annotations_of)
    ]


def _innermost(error: BaseException) -> BaseException:
    """Returns the root cause; Datumaro wraps exceptions several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _parts(root: Path, task: str) -> Iterator[Any]:
    """Yields the extracted items of each annotation file of a task.

    The files are read one by one, because a Datumaro Dataset identifies an image by its path without the suffix and would merge
    a.gif with a.png.
    """
    plugins = dm.Environment()
    for source in plugins.make_importer(f"coco_{task}")(str(root)):
        yield plugins.make_extractor(source["format"], source["url"], **source["options"])


def _serialised(annotations: Sequence[Annotation | None] | None) -> list[bytes] | None:
    """Returns None if an annotation could not be converted; the remaining ones would look like a complete annotation."""
    if annotations is None:
        return None
    serialized = [annotation.SerializeToString() for annotation in annotations if annotation is not None]
    return serialized if len(serialized) == len(annotations) else None


def _objects(item: Any, names: Sequence[str]) -> list[Annotation | None]:
    """Returns an annotation per object of an image; None for an object that cannot be converted. The parts of an object share its id."""
    objects: dict[int, list[Any]] = {}
    for part in item.annotations:
        objects.setdefault(part.id, []).append(part)
    return [_object(parts, item.media, names) for _, parts in sorted(objects.items())]


def _object(parts: Sequence[Any], media: Any, names: Sequence[str]) -> Annotation | None:
    """Converts an object. A polygon in several parts becomes a mask; a box is used only if the object has no other shape.

    Returns None also for masks with more pixels than an image may have. The image itself is rejected later, without failing the import.
    """
    if any(part.label is None for part in parts):
        return None
    annotation = Annotation(concept=names[parts[0].label])
    kinds = {kind: [part for part in parts if part.type.name == kind] for kind in ("mask", "polygon", "bbox", "label")}
    if len(kinds["mask"]) == 1:
        if prod(kinds["mask"][0].rle["size"]) > IMAGE_PIXELS_MAX:
            return None
        annotation.mask.CopyFrom(mask_of(np.asarray(kinds["mask"][0].image, np.bool_)))
    elif len(kinds["polygon"]) == 1:
        points = kinds["polygon"][0].points
        ring = Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in zip(points[::2], points[1::2], strict=True)])
        annotation.polygon.CopyFrom(Polygon(outline=ring))
    elif kinds["polygon"]:
        image_hw = _size_of(media)
        if image_hw is None or prod(image_hw) > IMAGE_PIXELS_MAX:
            return None
        height_px, width_px = image_hw
        union = mask_tools.rles_to_mask([part.points for part in kinds["polygon"]], width_px, height_px)
        annotation.mask.CopyFrom(mask_of(np.asarray(union, np.bool_)))
    elif len(kinds["bbox"]) == 1:
        box = kinds["bbox"][0]
        annotation.box.CopyFrom(
            PixelBox(x_min_px=box.x, y_min_px=box.y, x_max_px=box.x + box.w, y_max_px=box.y + box.h)
        )
    elif len(kinds["label"]) == 1:
        annotation.image_label.CopyFrom(ImageLabel())
    else:
        return None
    return annotation


def _size_of(media: Any) -> tuple[int, int] | None:
    """Returns height and width from the annotation file, else from the image header. Datumaro would decode the image instead."""
    if media.has_size:
        height_px, width_px = media.size
        return height_px, width_px
    try:
        with Path(media.path).open("rb") as file:
            header = split_file(file.read(IMAGE_BYTES_MAX + 1)).header
    except (InvalidArgument, OSError):
        return None
    return header.height_px, header.width_px
