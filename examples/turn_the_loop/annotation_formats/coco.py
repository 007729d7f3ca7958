"""COCO: JSON files with images, categories, and annotations with `bbox` in pixels and `segmentation` as polygons or run lengths."""

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from boxes import SizePx
from masks import Pixels, decoded, polygon_pixels
from pycocotools import mask as coco_masks

from annotation_formats.raw_images import RawImage, RawObject, image_files, is_test

_SECTIONS = ("images", "annotations", "categories")


def read_coco(folder: Path) -> list[RawImage]:
    """Reads all annotation files below the folder. An image belongs to the test split if the path of its annotation file says so.

    Crowds are left out. An image that several files name has the objects of the first.

    Raises:
        ValueError: an annotation file contradicts itself.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in image_files(folder):
        by_name[path.name].append(path)
    found: dict[Path, RawImage] = {}
    for file in sorted(folder.rglob("*.json")):
        document = _document(file)
        if document is None:
            continue
        in_test = is_test(file, folder)
        for name, objects in _objects_by_image(file, document).items():
            image = _find(name, file.parent, by_name[Path(name).name])
            if image and image not in found:
                found[image] = RawImage(image, objects, in_test)
    return list(found.values())


def _document(file: Path) -> dict[str, Any] | None:
    """Returns the content of an annotation file of objects; None for other JSON, such as that of panoptic maps."""
    try:
        document = json.loads(file.read_bytes())
    except ValueError:
        return None
    if not isinstance(document, dict) or not all(isinstance(document.get(name), list) for name in _SECTIONS):
        return None
    is_panoptic = any(isinstance(one, dict) and "segments_info" in one for one in document["annotations"])
    return None if is_panoptic else document


def _objects_by_image(file: Path, document: dict[str, Any]) -> dict[str, list[RawObject]]:
    try:
        concepts = {category["id"]: str(category["name"]) for category in document["categories"]}
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        objects: dict[str, list[RawObject]] = {name: [] for name in names.values()}
        has_crowds = _has_crowds(document["annotations"])
        for annotation in document["annotations"]:
            if annotation.get("iscrowd") and (has_crowds or not isinstance(annotation.get("segmentation"), dict)):
                continue
            corners = _corners(annotation["bbox"]) if annotation.get("bbox") else None
            drawn = annotation.get("segmentation")
            pixels = partial(_pixels, f"{file}: annotation {annotation.get('id')}", drawn) if drawn else None
            concept = concepts[annotation["category_id"]]
            objects[names[annotation["image_id"]]].append(RawObject(concept, corners, pixels))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is not a valid COCO file: {error!r}") from error
    return objects


def _has_crowds(annotations: list[dict[str, Any]]) -> bool:
    """Whether crowds are beside masks of objects. Otherwise `iscrowd` says only that masks are run lengths, as in Datumaro and CVAT."""
    return any(one.get("segmentation") and not one.get("iscrowd") for one in annotations)


def _corners(bbox: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, bbox)
    return x, y, x + width, y + height


def _pixels(what: str, drawn: Any, size_px: SizePx) -> Pixels:
    """Returns the pixels of a `segmentation`.

    Raises:
        ValueError: it is neither a list of polygons nor run lengths of the size of the image.
    """
    width, height = size_px
    try:
        if isinstance(drawn, list):
            return polygon_pixels([[float(value) for value in ring] for ring in drawn], size_px)
        runs = coco_masks.frPyObjects(drawn, height, width) if isinstance(drawn["counts"], list) else drawn
        pixels = decoded(runs)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{what} has no valid segmentation: {error}") from error
    if pixels.shape != (height, width):
        raise ValueError(
            f"{what} has a mask of {pixels.shape[1]} x {pixels.shape[0]} pixels, its image {width} x {height}"
        )
    return pixels


def _find(name: str, folder: Path, named: list[Path]) -> Path | None:
    """Returns the image of a `file_name`: relative to the annotation file, or else the one whose path ends likewise."""
    if (folder / name) in named:
        return folder / name
    ending = Path(name).parts
    return next((path for path in named if path.parts[-len(ending) :] == ending), named[0] if named else None)
