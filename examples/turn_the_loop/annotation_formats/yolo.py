"""YOLO: a text file per image with lines of a class number and shares of the image: centre, width and height, or points of a polygon."""

from functools import partial
from pathlib import Path
from typing import Any

import yaml
from boxes import SizePx, image_size
from masks import polygon_pixels

from annotation_formats.raw_images import RawImage, RawObject, image_files, is_test

_LISTS = ("classes.txt", "obj.names")


def read_yolo(folder: Path) -> list[RawImage]:
    """Reads the images below the folder, each with the text file of its name in `labels/` (or the first folder that begins so)
    instead of `images/`, or beside it.

    An image without a text file shows no object. The names of the classes are in a YAML file with `names`, or in classes.txt. The
    folder of an image says whether it belongs to the test split.

    Raises:
        ValueError: a line is invalid, or has a class without a name.
    """
    names = _names(folder)
    if not names:
        return []
    found = ((path, _objects(path, names)) for path in image_files(folder))
    return [RawImage(path, objects, is_test(path, folder)) for path, objects in found if objects is not None]


def _names(folder: Path) -> dict[int, str]:
    for file in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        try:
            document: Any = yaml.safe_load(file.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        names = document.get("names") if isinstance(document, dict) else None
        if isinstance(names, list):
            return dict(enumerate(map(str, names)))
        if isinstance(names, dict):
            return {int(number): str(name) for number, name in names.items()}
    for file in (file for name in _LISTS for file in sorted(folder.rglob(name))):
        return dict(enumerate(file.read_text().split("\n")))
    return {}


def _objects(path: Path, names: dict[int, str]) -> list[RawObject] | None:
    """Returns the objects of an image; None if the file is not an image."""
    labels = _labels_of(path)
    if labels is None:
        return []
    try:
        size_px = image_size(path)
    except OSError:
        return None
    objects = []
    for number, line in enumerate(labels.read_text().splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            concept = names[int(words[0])]
            objects.append(_object(concept, [float(word) for word in words[1:]], size_px))
        except KeyError as error:
            raise ValueError(f"{labels}:{number} has the class {words[0]}, which has no name") from error
        except ValueError as error:
            raise ValueError(
                f"{labels}:{number} is not a class number with four or more coordinates: {line!r}"
            ) from error
    return objects


def _labels_of(path: Path) -> Path | None:
    beside = path.with_suffix(".txt")
    images = next((parent for parent in path.parents if parent.name == "images"), None)
    below = sorted(images.parent.glob("labels*")) if images else []
    candidates = [folder / beside.relative_to(images) for folder in below if images] + [beside]
    return next((file for file in candidates if file.is_file()), None)


def _object(concept: str, shares: list[float], size_px: SizePx) -> RawObject:
    """Returns an object with its box, or with the box around its polygon and its pixels."""
    width, height = size_px
    if len(shares) > 4 and len(shares) % 2 == 0:
        x, y = [share * width for share in shares[::2]], [share * height for share in shares[1::2]]
        ring = [coordinate for point in zip(x, y, strict=True) for coordinate in point]
        return RawObject(concept, (min(x), min(y), max(x), max(y)), partial(polygon_pixels, [ring]))
    x_center, y_center, box_width, box_height = shares
    corners = (
        (x_center - box_width / 2) * width,
        (y_center - box_height / 2) * height,
        (x_center + box_width / 2) * width,
        (y_center + box_height / 2) * height,
    )
    return RawObject(concept, corners)
