"""YOLO: a text file per image with lines of a class number, the centre, the width and the height as shares of the image."""

from pathlib import Path
from typing import Any

import yaml
from boxes import image_size
from photographs import Photograph, Photographs

from annotation_formats.boxed_images import RawBox, boxed_image, boxed_images, image_files, is_test

_LISTS = ("classes.txt", "obj.names")


def read_yolo(folder: Path) -> Photographs | None:
    """Reads the images below the folder, each with the text file of its name in `labels/` (or the first folder that begins so)
    instead of `images/`, or beside it.

    An image without a text file shows no object. The names of the classes are in a YAML file with `names`, or in classes.txt. The
    folder of an image says whether it belongs to the test split.

    Returns:
        None if no names are found, or no object.

    Raises:
        ValueError: a line is invalid, or has a class without a name.
    """
    names = _names(folder)
    if not names:
        return None
    pool: list[Photograph | None] = []
    test: list[Photograph | None] = []
    for path in image_files(folder):
        (test if is_test(path, folder) else pool).append(_image(path, names))
    return boxed_images(folder, pool, test)


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


def _image(path: Path, names: dict[int, str]) -> Photograph | None:
    labels = _labels_of(path)
    if labels is None:
        return boxed_image(path, [])
    try:
        size_px = image_size(path)
    except OSError:
        return None
    return boxed_image(path, _boxes(labels, names, size_px), size_px)


def _labels_of(path: Path) -> Path | None:
    beside = path.with_suffix(".txt")
    images = next((parent for parent in path.parents if parent.name == "images"), None)
    below = sorted(images.parent.glob("labels*")) if images else []
    candidates = [folder / beside.relative_to(images) for folder in below if images] + [beside]
    return next((file for file in candidates if file.is_file()), None)


def _boxes(file: Path, names: dict[int, str], size_px: tuple[int, int]) -> list[RawBox]:
    boxes: list[RawBox] = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            concept = names[int(words[0])]
            boxes.append((concept, _corners([float(word) for word in words[1:]], size_px)))
        except KeyError as error:
            raise ValueError(f"{file}:{number} has the class {words[0]}, which has no name") from error
        except ValueError as error:
            raise ValueError(
                f"{file}:{number} is not a class number with four or more coordinates: {line!r}"
            ) from error
    return boxes


def _corners(shares: list[float], size_px: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns the corners of a box, or of the box around a polygon."""
    width, height = size_px
    if len(shares) > 4 and len(shares) % 2 == 0:
        x, y = shares[::2], shares[1::2]
        return min(x) * width, min(y) * height, max(x) * width, max(y) * height
    x_center, y_center, box_width, box_height = shares
    return (
        (x_center - box_width / 2) * width,
        (y_center - box_height / 2) * height,
        (x_center + box_width / 2) * width,
        (y_center + box_height / 2) * height,
    )
