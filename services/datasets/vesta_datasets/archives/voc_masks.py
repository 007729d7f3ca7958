"""The masks of a Pascal VOC archive: images whose colours are classes (SegmentationClass/) and objects (SegmentationObject/).

labelmap.txt names the colour of each class, as CVAT and Datumaro write it; without it, or without colours, the classes have those of the
original archives in order, after black for none of them (https://host.robots.ox.ac.uk/pascal/VOC/). The pixels of `VOID` belong to no
object: the original archives have them between objects. Object i of SegmentationObject/ is the i-th of the XML file.

Reading runs in a sandboxed child process that can access only the archive's folder (`vesta_common.sandbox`).
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from vesta_common.media.image_formats import IMAGE_PIXELS_MAX
from vesta_contracts.common.v1 import Annotation

from vesta_datasets.archives.layout import is_hidden
from vesta_datasets.archives.masks import mask_of, pixels_of

CLASS_FOLDER: Final = "SegmentationClass"
OBJECT_FOLDER: Final = "SegmentationObject"
LABEL_MAP: Final = "labelmap.txt"
NUMBERS_MAX: Final = 254
"""Of classes and of objects: 0 is none, and 255 is void."""
OBJECTS_MAX: Final = 2000
"""Of an archive that is read, whose files may have other colours than those of numbers."""
BACKGROUND: Final = "background"
_CLASSES: Final = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike",
    "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_FILE_BYTES_MAX: Final = 256 * 1024 * 1024
Colours = NDArray[np.uint32]


class FlawedMaskError(ValueError):
    """The masks of an image cannot be converted. The message follows the words "is rejected, because"."""


def colour(number: int) -> tuple[int, int, int]:
    """Returns the colour of a class or object number in [0, 255]: its bits, spread over red, green and blue."""
    channels = [0, 0, 0]
    for place in range(3):
        for channel in range(3):
            channels[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]


def class_of_colours(root: Path) -> dict[int, str]:
    """Returns the classes of an archive by packed colour. Raises ValueError with the line of labelmap.txt that is invalid."""
    file = next(iter(sorted(root.rglob(LABEL_MAP))), None)
    if file is None:
        return {_packed_colour(colour(number)): name for number, name in enumerate(_CLASSES, 1)}
    classes, following = dict[int, str](), 1
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        name, _, rest = line.partition(":")
        if not name.strip() or name.startswith("#"):
            continue
        channels = [int(value) for value in rest.partition(":")[0].split(",") if value.strip().isdecimal()]
        if name == BACKGROUND:
            continue
        if len(channels) not in (0, 3) or any(value > 255 for value in channels):
            raise ValueError(f"{LABEL_MAP}: line {number} has no colour of three numbers in [0, 255]")
        key = _packed_colour(channels or colour(following))
        if key in classes or not key:
            raise ValueError(f"{LABEL_MAP}: line {number} has the colour of another class, or of the background")
        classes[key], following = name, following + 1
    return classes


def class_files(root: Path) -> list[Path]:
    """Returns the files of SegmentationClass/ of an archive."""
    return sorted(path for path in root.rglob(f"{CLASS_FOLDER}/**/*.png") if not is_hidden(path.relative_to(root)))


def read_masks(root: Path, class_file: Path, classes: Mapping[int, str]) -> list[tuple[int, Annotation]]:
    """Returns the masks of an image with their numbers in the XML file, from 1: one for each object. Without a file of objects, one for
    each class, with the number 0.

    Raises:
        FlawedMaskError: a file is no image, is too large, has an unknown colour, or the two files contradict each other.
    """
    by_class = _read(root, class_file)
    parts = class_file.relative_to(root).parts
    place = len(parts) - 1 - parts[::-1].index(CLASS_FOLDER)
    object_file = root.joinpath(*parts[:place], OBJECT_FOLDER, *parts[place + 1 :])
    by_object = _read(root, object_file) if object_file.is_file() else by_class
    if by_object.shape != by_class.shape:
        raise FlawedMaskError(f"{_name(root, object_file)} has another size than {_name(root, class_file)}")
    keys = _keys(by_object)
    if len(keys) > OBJECTS_MAX:
        raise FlawedMaskError(f"{_name(root, object_file)} has {len(keys)} objects, the maximum is {OBJECTS_MAX}")
    found = []
    for key in keys:
        pixels = by_object == key
        inside = by_class[pixels]
        colours = _keys(inside)
        unknown = next((value for value in colours if value not in classes), None)
        if unknown is not None:
            channels = ", ".join(str(unknown >> shift & 255) for shift in (16, 8, 0))
            raise FlawedMaskError(
                f"{_name(root, class_file)} has the colour ({channels}), which {LABEL_MAP} does not name"
            )
        concepts = {classes[value] for value in colours}
        if len(concepts) != 1:
            raise FlawedMaskError(
                f"{_name(root, object_file)} has an object of {len(concepts)} classes; each pixel of an object has the same class"
            )
        (concept,) = concepts
        # Void pixels between objects are part of none, even if only one of the files has them.
        mask = mask_of(pixels & (by_class != 0) & (by_class != VOID))
        number = _NUMBERS.get(key, 0) if by_object is not by_class else 0
        found += [(number, Annotation(concept=concept, mask=mask))] if any(mask.runs_px[1::2]) else []
    return found


def written_masks(annotations: Sequence[Annotation], class_numbers: Mapping[str, int]) -> tuple[bytes, bytes]:
    """Returns the files of SegmentationClass/ and SegmentationObject/ of an image with masks, which do not overlap."""
    shape = (annotations[0].mask.height_px, annotations[0].mask.width_px)
    classes, objects = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for number, annotation in enumerate(annotations, 1):
        pixels = pixels_of(annotation.mask)
        classes[pixels], objects[pixels] = class_numbers[annotation.concept], number
    return _png(classes), _png(objects)


def _png(numbers: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(numbers, "P")
    image.putpalette([channel for number in range(256) for channel in colour(number)])
    target = io.BytesIO()
    image.save(target, "PNG", optimize=False)
    return target.getvalue()


def _read(root: Path, file: Path) -> Colours:
    """Returns the `(H, W)` packed colours of a mask file."""
    name = _name(root, file)
    if file.stat().st_size > _FILE_BYTES_MAX:
        raise FlawedMaskError(f"{name} has more than {_FILE_BYTES_MAX} bytes")
    try:
        with Image.open(file, formats=(PngImagePlugin.PngImageFile.format,)) as image:
            if image.width * image.height > IMAGE_PIXELS_MAX:
                raise FlawedMaskError(
                    f"{name} has {image.width} x {image.height} pixels, the maximum is {IMAGE_PIXELS_MAX} pixels"
                )
            if image.mode in ("L", "I", "I;16"):  # class numbers instead of colours
                numbers = np.minimum(np.asarray(image), 255)
                colours: Colours = _COLOURS[numbers]
                return colours
            channels = np.asarray(image.convert("RGB"), np.uint32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, FlawedMaskError):
            raise
        raise FlawedMaskError(f"{name} is not a PNG image") from error
    weights = np.array([1 << 16, 1 << 8, 1], np.uint32)
    packed: Colours = channels @ weights
    return packed


def _keys(colours: Colours) -> list[int]:
    """Returns the colours that are neither black nor void, in the order of their numbers in the original archives."""
    ordered = np.sort(colours, axis=None)  # np.unique imports modules, which the sandbox forbids
    found = set(ordered[np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))].tolist()) - {0, VOID}
    return sorted(found, key=lambda key: (_NUMBERS.get(key, 256), key))


def _packed_colour(channels: Sequence[int]) -> int:
    return channels[0] << 16 | channels[1] << 8 | channels[2]


def _name(root: Path, file: Path) -> str:
    return str(file.relative_to(root))


_NUMBERS: Final = {_packed_colour(colour(number)): number for number in range(256)}
_COLOURS: Final[Colours] = np.array(list(_NUMBERS), np.uint32)
VOID: Final = _packed_colour(colour(255))
"""The packed colour of pixels that belong to no object: (224, 224, 192)."""
