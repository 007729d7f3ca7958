"""Pascal VOC's masks: PNG files whose colours are classes (SegmentationClass) and files whose colours are objects (SegmentationObject)."""

from functools import partial
from pathlib import Path

import numpy as np
from boxes import SizePx
from masks import Pixels
from numpy.typing import NDArray
from PIL import Image

from annotation_formats.raw_images import RawImage, RawObject, image_files, is_test
from annotation_formats.voc import names_of_test

_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_BACKGROUND, _VOID = (0, 0, 0), (224, 224, 192)
_NOT_CONCEPTS = {"background", "void", "ignored"}

Colour = tuple[int, int, int]


def read_voc_masks(folder: Path) -> list[RawImage]:
    """Reads the files below `SegmentationClass`, each with the image of its name, and that of its name in `SegmentationObject`.

    The colours of classes are those of `labelmap.txt` (`name:red,green,blue`), or else those of Pascal VOC.
    `ImageSets/Segmentation/test.txt`, or else the folder of the image, makes the test split.

    Raises:
        ValueError: a file has a colour without a class, or is not a PNG file.
    """
    files = sorted(file for file in folder.rglob("SegmentationClass/*.png") if not file.name.startswith("."))
    if not files:
        return []
    names = _names(folder)
    images = {
        path.stem: path
        for path in image_files(folder)
        if not path.parent.name.startswith(("SegmentationClass", "SegmentationObject"))
    }
    listed = names_of_test(folder, "Segmentation")
    found = []
    for file in files:
        path = images.get(file.stem)
        if path:
            in_test = path.stem in listed if listed else is_test(path, folder)
            found.append(RawImage(path, _objects(file, names), in_test))
    return found


def _names(folder: Path) -> dict[Colour, str]:
    """Returns the class of each colour."""
    for file in sorted(folder.rglob("labelmap.txt")):
        lines = [line.split(":") for line in file.read_text().splitlines() if line and not line.startswith("#")]
        try:
            return {_colour(colour): name for name, colour, *_ in lines if colour}
        except ValueError as error:
            raise ValueError(f"{file} is not a label map with lines of name:red,green,blue: {error}") from error
    return {_voc_colour(number): name for number, name in enumerate(_CLASSES)}


def _colour(text: str) -> Colour:
    red, green, blue = map(int, text.split(","))
    return red, green, blue


def _voc_colour(number: int) -> Colour:
    """Returns the colour of a class: the bits of its number, distributed over red, green and blue from the highest bit on."""
    return tuple(  # type: ignore[return-value]
        sum(((number >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )


def _objects(file: Path, names: dict[Colour, str]) -> list[RawObject]:
    """Returns the region of each class, and each object with the class of most of its pixels."""
    classes = _colours(file)
    regions = {colour: names.get(colour) for colour in _found(classes)}
    for colour, name in regions.items():
        if name is None:
            raise ValueError(f"{file} has the colour {colour}, which has no class; name it in labelmap.txt")
    found = [
        RawObject(name, pixels=partial(_pixels, file, colour), is_region=True)
        for colour, name in regions.items()
        if name and name not in _NOT_CONCEPTS
    ]
    parts = file.parent.parent / "SegmentationObject" / file.name
    if not parts.is_file():
        return found
    objects = _colours(parts)
    if objects.shape != classes.shape:
        raise ValueError(f"{parts} has another size than {file}")
    for colour in _found(objects):
        inside = classes[(objects == colour).all(axis=2)]
        shades, counts = np.unique(inside, axis=0, return_counts=True)
        name = names.get(tuple(shades[counts.argmax()].tolist()))
        if name and name not in _NOT_CONCEPTS:
            found.append(RawObject(name, pixels=partial(_pixels, parts, colour)))
    return found


def _colours(file: Path) -> NDArray[np.uint8]:
    """Returns `(H, W, 3)` colours. Numbers without a palette become those of Pascal VOC."""
    try:
        with Image.open(file) as image:
            if image.mode not in ("L", "I", "I;16"):
                return np.asarray(image.convert("RGB"), np.uint8)
            numbers = np.asarray(image)
    except OSError as error:
        raise ValueError(f"{file} is not a PNG file: {error}") from error
    palette = np.array([_voc_colour(number) for number in range(256)], np.uint8)
    colours: NDArray[np.uint8] = palette[np.minimum(numbers, 255)]
    return colours


def _found(colours: NDArray[np.uint8]) -> list[Colour]:
    """Returns the colours of objects, in order."""
    shades = np.unique(colours.reshape(-1, 3), axis=0).tolist()
    return [colour for shade in shades if (colour := tuple(shade)) not in (_BACKGROUND, _VOID)]


def _pixels(file: Path, colour: Colour, size_px: SizePx) -> Pixels:
    pixels: Pixels = (_colours(file) == colour).all(axis=2)
    if pixels.shape != size_px[::-1]:
        raise ValueError(
            f"{file} has {pixels.shape[1]} x {pixels.shape[0]} pixels, its image {size_px[0]} x {size_px[1]}"
        )
    return pixels
