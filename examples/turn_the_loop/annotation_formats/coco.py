"""COCO: JSON files with images, categories, and annotations with `bbox` as x, y, width and height in pixels."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from photographs import Photograph, Photographs

from annotation_formats.boxed_images import RawBox, boxed_image, boxed_images, image_files, is_test

_SECTIONS = ("images", "annotations", "categories")


def read_coco(folder: Path) -> Photographs | None:
    """Reads all annotation files below the folder. An image belongs to the test split if the path of its annotation file says so.

    Crowds are left out. An image that several files name has the objects of the first.

    Returns:
        None if there is no such file, or no object.

    Raises:
        ValueError: an annotation file contradicts itself.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in image_files(folder):
        by_name[path.name].append(path)
    sides: dict[bool, dict[Path, Photograph | None]] = {False: {}, True: {}}
    for file in sorted(folder.rglob("*.json")):
        document = _document(file)
        if document is None:
            continue
        side = sides[is_test(file, folder)]
        for name, boxes in _boxes_by_image(file, document).items():
            image = _find(name, file.parent, by_name[Path(name).name])
            if image and image not in sides[False] and image not in sides[True]:
                side[image] = boxed_image(image, boxes)
    return boxed_images(folder, sides[False].values(), sides[True].values())


def _document(file: Path) -> dict[str, Any] | None:
    """Returns the content of an annotation file; None for other JSON."""
    try:
        document = json.loads(file.read_bytes())
    except ValueError:
        return None
    is_coco = isinstance(document, dict) and all(isinstance(document.get(name), list) for name in _SECTIONS)
    return document if is_coco else None


def _boxes_by_image(file: Path, document: dict[str, Any]) -> dict[str, list[RawBox]]:
    try:
        concepts = {category["id"]: str(category["name"]) for category in document["categories"]}
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        boxes: dict[str, list[RawBox]] = {name: [] for name in names.values()}
        for annotation in document["annotations"]:
            if not annotation.get("iscrowd") and annotation.get("bbox"):
                x, y, width, height = map(float, annotation["bbox"])
                corners = (x, y, x + width, y + height)
                boxes[names[annotation["image_id"]]].append((concepts[annotation["category_id"]], corners))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is not a valid COCO file: {error!r}") from error
    return boxes


def _find(name: str, folder: Path, named: list[Path]) -> Path | None:
    """Returns the image of a `file_name`: relative to the annotation file, or else the one whose path ends likewise."""
    if (folder / name) in named:
        return folder / name
    ending = Path(name).parts
    return next((path for path in named if path.parts[-len(ending) :] == ending), named[0] if named else None)
