"""The Pascal VOC layout: an XML file of boxes for each image, and optionally masks. `voc_writer.py` writes it.

The files are in Annotations/ and the images in JPEGImages/, and ImageSets/Main/ has a list of images for each split; or images are beside
their XML files, in a folder for each split. Coordinates are read as they are, as LabelImg, CVAT and Datumaro write them; the original VOC
archives number pixels from 1, so that 1 is subtracted from the minima of their boxes. An image with a file without objects shows none of
the concepts; an image without a file is not annotated. Masks (`voc_masks.py`) are read if the importing dataset allows them. Parts of
objects are not read.

This module runs in a sandboxed child process that can access only the archive's folder (`vesta_common.sandbox`).
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException
from vesta_contracts.common.v1 import Annotation, PixelBox
from vesta_contracts.datasets.v1 import AnnotationList

from vesta_datasets.archives.entries import Entry
from vesta_datasets.archives.layout import (
    IMAGE_SUFFIXES,
    TRUE,
    VOC_FLAGS,
    UnreadableArchiveError,
    image_files,
    is_hidden,
    parse_split,
)
from vesta_datasets.archives.voc_masks import (
    CLASS_FOLDER,
    OBJECT_FOLDER,
    FlawedMaskError,
    class_files,
    class_of_colours,
    read_masks,
)

_XML_BYTES_MAX: Final = 64 * 1024 * 1024
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")


class _FlawedFileError(ValueError):
    """A file cannot be converted. The message follows its name."""


def annotation_files(root: Path) -> list[Path]:
    """Returns the XML files of an archive."""
    return sorted(path for path in root.rglob("*.xml") if not is_hidden(path.relative_to(root)) and path.is_file())


def read_voc(root: Path, shapes: Collection[str]) -> Iterator[tuple[Entry, bytes]]:
    """Yields the images of an archive, ordered by path, whether or not it contains them.

    Args:
        shapes: that the importing dataset allows. If it allows masks and the archive has masks, objects have these. An image without
            masks has its boxes if the dataset allows boxes, and is otherwise not annotated, unless its file has no objects.

    Raises:
        UnreadableArchiveError: there is no XML file and no mask, or one is not a VOC annotation; the list of classes is invalid.
    """
    files = annotation_files(root)
    masks = class_files(root) if "mask" in shapes else []
    if not files and not masks:
        raise UnreadableArchiveError(
            "the archive has no XML files; Pascal VOC has them in Annotations/ or beside the images"
        )
    splits = _splits(root)
    images = {str(path.relative_to(root)): path for path in image_files(root) if not _is_mask(path.relative_to(root))}
    by_stem = {str(path.with_suffix("")): name for name, path in images.items()}
    counts = Counter(path.stem for path in images.values())
    by_stem |= {path.stem: name for name, path in images.items() if counts[path.stem] == 1}
    files_of: dict[str, Path] = {}
    for file in files:
        name = _image_of(root, file, by_stem)
        if name in files_of:
            raise UnreadableArchiveError(
                f"{file.relative_to(root)} and {files_of[name].relative_to(root)} are annotations of the same image, {name}"
            )
        files_of[name] = file
    masks_of = {_image_of(root, file, by_stem): file for file in masks}
    try:
        classes = class_of_colours(root) if masks else {}
    except ValueError as error:
        raise UnreadableArchiveError(str(error)) from error
    has_boxes = not masks or "box" in shapes
    for name in sorted({*images, *files_of, *masks_of}):
        split = splits.get(Path(name).stem) or _split_of(Path(name))
        entry, objects = _entry(root, name, split, files_of.get(name))
        if name in masks_of and not entry.flaw:
            entry, objects = _with_masks(root, entry, objects, masks_of[name], classes)
        elif objects and not has_boxes:
            entry, objects = Entry(name, split), []
        yield entry, AnnotationList(annotations=objects).SerializeToString()


def _with_masks(
    root: Path, entry: Entry, boxes: Sequence[Annotation], file: Path, classes: Mapping[int, str]
) -> tuple[Entry, list[Annotation]]:
    """Returns an image with masks, which have the attributes of the boxes with the same number."""
    where = f"is rejected, because {file.relative_to(root)}"
    try:
        masks = read_masks(root, file, classes)
    except FlawedMaskError as error:
        return Entry(entry.path, entry.split, flaw=f"is rejected, because {error}"), []
    for number, mask in masks:
        if 0 < number <= len(boxes) and boxes[number - 1].concept == mask.concept:
            mask.attributes.update(boxes[number - 1].attributes)
    size = next(((mask.mask.width_px, mask.mask.height_px) for _, mask in masks), (entry.width_px, entry.height_px))
    if entry.width_px and entry.height_px and size != (entry.width_px, entry.height_px):
        stated = f"its XML file states {entry.width_px} x {entry.height_px}"
        return Entry(entry.path, entry.split, flaw=f"{where} has {size[0]} x {size[1]} pixels, but {stated}"), []
    return replace(entry, is_annotated=True, width_px=size[0], height_px=size[1]), [mask for _, mask in masks]


def _entry(root: Path, name: str, split: str, file: Path | None) -> tuple[Entry, list[Annotation]]:
    if file is None:
        return Entry(name, split), []
    where = str(file.relative_to(root))
    tree = _parsed(file, where)
    try:
        width_px, height_px = (_size(tree, side) for side in ("width", "height"))
        offset = 1.0 if (tree.findtext("source/database") or "").startswith("The VOC") else 0.0
        objects = [_object(element, number, offset) for number, element in enumerate(tree.iterfind("object"), 1)]
    except _FlawedFileError as error:
        return Entry(name, split, flaw=f"is rejected, because {where} {error}"), []
    return Entry(name, split, is_annotated=True, width_px=width_px, height_px=height_px), objects


def _parsed(file: Path, where: str) -> Any:
    """Returns the root element. Entities and document types are not allowed.

    Raises:
        UnreadableArchiveError: the file is not a VOC annotation.
    """
    if file.stat().st_size > _XML_BYTES_MAX:
        raise UnreadableArchiveError(f"{where} has more than {_XML_BYTES_MAX} bytes")
    try:
        tree = ElementTree.parse(file, forbid_dtd=True).getroot()
    except DefusedXmlException as error:
        raise UnreadableArchiveError(f"{where} declares a document type or entities, which is not allowed") from error
    except (ElementTree.ParseError, LookupError, ValueError, RecursionError) as error:
        raise UnreadableArchiveError(f"{where} is not valid XML: {error}") from error
    if tree.tag != "annotation":
        raise UnreadableArchiveError(f"{where} is not a Pascal VOC annotation: its element is {tree.tag!r}")
    return tree


def _object(element: Any, number: int, offset: float) -> Annotation:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise _FlawedFileError(f"has no name for object {number}")
    x_min, y_min, x_max, y_max = (_number(element, f"bndbox/{corner}", number) for corner in _CORNERS)
    annotation = Annotation(
        concept=name,
        box=PixelBox(x_min_px=x_min - offset, y_min_px=y_min - offset, x_max_px=x_max, y_max_px=y_max),
    )
    for flag in VOC_FLAGS:
        if (element.findtext(flag) or "").strip() in ("1", "1.0", "true"):
            annotation.attributes[flag] = TRUE
    pose = (element.findtext("pose") or "").strip()
    if pose and pose.lower() not in ("unspecified", "unknown"):
        annotation.attributes["pose"] = pose
    return annotation


def _number(element: Any, path: str, number: int) -> float:
    text = element.findtext(path)
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise _FlawedFileError(f"has the {path} {text!r} for object {number}; write a number")
    return value


def _size(tree: Any, side: str) -> int:
    """Returns a side of the image in pixels; 0 if the file does not state it. Some tools write whole numbers as 640.0."""
    text = (tree.findtext(f"size/{side}") or "0").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer() or not 0 <= value < 2**31:
        raise _FlawedFileError(f"has the {side} {text!r}; write a whole number of pixels")
    return int(value)


def _image_of(root: Path, file: Path, by_stem: dict[str, str]) -> str:
    """Returns the path of the image of an XML file or mask, relative to the root: a candidate that exists, or the one in JPEGImages/.

    Args:
        by_stem: the images by their paths without suffix, and by their names without suffix if there is only one.
    """
    relative = file.relative_to(root)
    parents = [file.parent]
    if apart := next((folder for folder in ("Annotations", CLASS_FOLDER) if folder in relative.parts[:-1]), None):
        place = relative.parts.index(apart)
        parents = [
            root.joinpath(*relative.parts[:place], other, *relative.parts[place + 1 : -1])
            for other in ("JPEGImages", "images")
        ]
    for stem in (*(str(parent / file.stem) for parent in parents), file.stem):
        if name := by_stem.get(stem):
            return name
    return str((parents[0] / f"{file.stem}.jpg").relative_to(root))


def _splits(root: Path) -> dict[str, str]:
    """Returns the splits of images by the stems of their names, from the lists in ImageSets/."""
    splits: dict[str, str] = {}
    for name, split in (("trainval", "TRAIN"), ("train", "TRAIN"), ("val", "VALIDATION"), ("test", "TEST")):
        for path in sorted(
            (*root.rglob(f"ImageSets/Segmentation/{name}.txt"), *root.rglob(f"ImageSets/Main/{name}.txt"))
        ):
            for line in path.read_text("utf-8", "replace").splitlines():
                if words := line.split():
                    stem = words[0].rpartition("/")[2]
                    splits[Path(stem).stem if Path(stem).suffix.lower() in IMAGE_SUFFIXES else stem] = split
    return splits


def _is_mask(path: Path) -> bool:
    return any(part in (CLASS_FOLDER, OBJECT_FOLDER) for part in path.parts)


def _split_of(path: Path) -> str:
    return next(filter(None, (parse_split(part) for part in path.parts[:-1])), "")
