"""The COCO layout. `coco_writer.py` writes it.

Shapes are in annotations/instances_*.json, keypoints in person_keypoints_*.json, image labels in labels_*.json, and images in images/ or
beside their annotation file. The files are read as streams, one pass for each list, because a list may precede those that it refers to.

This module runs in a sandboxed child process that can access only the archive's folder (`vesta_common.sandbox`).
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import ijson
from vesta_common.errors import InvalidArgument
from vesta_common.media.crowds import CROWD, TRUE
from vesta_common.media.image_formats import IMAGE_BYTES_MAX, split_file

from vesta_datasets.archives.coco_shapes import Category, FlawedObjectError, annotation_of
from vesta_datasets.archives.entries import Entry
from vesta_datasets.archives.layout import UnreadableArchiveError, is_hidden, parse_split
from vesta_datasets.archives.object_spool import ObjectSpool

_LISTED: Final = "image_info"
_INSTANCES: Final = "instances"
_LABELS: Final = "labels"
_TASKS: Final = (_LISTED, _INSTANCES, "person_keypoints", _LABELS)
_OTHER_NAMES: Final = ("_annotations.coco", "annotations", "instances")
"""Annotation files of other tools, whose folder names the split."""
_UNREAD_TASKS: Final = ("captions", "panoptic", "stuff")
"""Tasks of COCO whose files are not read."""
_LISTS: Final = ("images", "annotations", "categories")
_ID_MAX: Final = 2**62


@dataclass(slots=True)
class _Image:
    path: str
    split: str
    width_px: int
    height_px: int
    is_annotated: bool = False
    flaw: str = ""


def annotation_files(root: Path) -> list[tuple[Path, str, str]]:
    """Returns the annotation files of an archive with their tasks and subsets, in the order in which they are read.

    Files of any other name, such as Label Studio's result.json and FiftyOne's labels.json, are recognised by their lists.
    """
    found = []
    for path in sorted(root.rglob("*.json")):
        if is_hidden(path.relative_to(root)):
            continue
        task, _, subset = path.stem.rpartition("_")
        if task in _TASKS:
            found.append((path, task, subset))
        elif path.stem in _OTHER_NAMES or (task not in _UNREAD_TASKS and _has_lists(path)):
            found.append((path, _INSTANCES, subset if parse_split(subset) else path.parent.name))
    return sorted(found, key=lambda file: _TASKS.index(file[1]))


def read_coco(root: Path, shapes: Collection[str], scratch: Path) -> Iterator[tuple[Entry, bytes]]:
    """Yields the images that the annotation files of an archive name, ordered by path, whether or not the archive contains them.

    Args:
        shapes: the shapes that the importing dataset allows; see `annotation_of`.
        scratch: a folder for a temporary file.

    Raises:
        UnreadableArchiveError: the archive has no annotation file, or one that is invalid or contradicts itself.
    """
    files = annotation_files(root)
    if not files:
        raise UnreadableArchiveError(
            "the archive has none of annotations/instances_*.json, annotations/person_keypoints_*.json and annotations/labels_*.json"
        )
    with closing(ObjectSpool(scratch / "objects")) as spool:
        reader = _Reader(root, shapes, spool)
        for path, task, subset in files:
            reader.read(path, task, subset)
        yield from reader.entries()


class _Reader:
    """Reads the annotation files of one archive."""

    def __init__(self, root: Path, shapes: Collection[str], spool: ObjectSpool) -> None:
        self._root = root
        self._shapes = shapes
        self._spool = spool
        self._images: list[_Image] = []
        self._number_of: dict[str, int] = {}
        self._file_count = 0

    def read(self, path: Path, task: str, subset: str) -> None:
        """Reads an annotation file."""
        name = str(path.relative_to(self._root))
        self._file_count += 1
        try:
            numbers = self._read_images(path, name, task, subset)
            if task != _LISTED:
                self._read_objects(path, name, task, numbers)
        except (ijson.JSONError, UnicodeDecodeError, RecursionError) as error:
            raise UnreadableArchiveError(f"{name} is not valid JSON: {' '.join(str(error).split())}") from error

    def entries(self) -> Iterator[tuple[Entry, bytes]]:
        """Yields the images of all files."""
        self._spool.arrange(len(self._images))
        for path in sorted(self._number_of):
            number = self._number_of[path]
            image = self._images[number]
            if image.flaw:
                yield Entry(path, image.split, flaw=image.flaw), b""
            else:
                entry = Entry(path, image.split, image.is_annotated, "", image.width_px, image.height_px)
                yield entry, self._spool.annotations_of(number)

    def _read_images(self, path: Path, name: str, task: str, subset: str) -> dict[Any, int]:
        """Returns the numbers of the images of a file by their ids."""
        numbers: dict[Any, int] = {}
        for index, said in _listed(path, "images"):
            where = f"{name}: images[{index}]"
            image_id, file_name = _id_of(said, "id", where), said.get("file_name")
            if not isinstance(file_name, str) or not file_name or "\x00" in file_name:
                _refuse(f"{where} has no file_name")
            if image_id in numbers:
                _refuse(f"{where} has the id {image_id!r}, which another image of the file has")
            width_px, height_px = (_size(said, side, where) for side in ("width", "height"))
            at = self._path_of(file_name, path, subset)
            number = self._number_of.setdefault(at, len(self._images))
            if number == len(self._images):
                self._images.append(_Image(at, parse_split(f"x_{subset}"), width_px, height_px))
            self._images[number].is_annotated |= task != _LISTED
            numbers[image_id] = number
        if len(set(numbers.values())) < len(numbers):
            _refuse(f"{name} lists an image file twice, with different ids")
        return numbers

    def _read_objects(self, path: Path, name: str, task: str, numbers: Mapping[Any, int]) -> None:
        categories: dict[Any, Category] = {}
        for index, (category_id, category) in enumerate(_categories(path, name)):
            if category_id in categories:
                _refuse(
                    f"{name}: categories[{index}] has the id {category_id!r}, which another category of the file has"
                )
            categories[category_id] = category
        has_crowds = has_others = False
        for index, said in _listed(path, "annotations"):
            where = f"{name}: annotations[{index}]"
            image_id, category_id = (_id_of(said, field, where) for field in ("image_id", "category_id"))
            if image_id not in numbers:
                _refuse(f"{where} has the image_id {image_id!r}, which is not in the list of images")
            if category_id not in categories:
                _refuse(f"{where} has the category_id {category_id!r}, which is not in the list of categories")
            number = numbers[image_id]
            image, object_id = self._images[number], said.get("id")
            has_id = isinstance(object_id, int) and 0 <= object_id < _ID_MAX and task != _LABELS
            try:
                size_of, category = partial(self._size_of, image), categories[category_id]
                found = annotation_of(said, category, self._shapes, size_of, labels_images=task == _LABELS)
            except FlawedObjectError as error:
                image.flaw = image.flaw or f"is rejected, because annotation {said.get('id', index)} {error}"
                continue
            is_preferred = found.WhichOneof("shape") in self._shapes
            is_crowd, segmentation = bool(said.get("iscrowd")), said.get("segmentation")
            has_crowds |= is_crowd and isinstance(segmentation, dict)
            has_others |= bool(segmentation) and not is_crowd
            if is_crowd and not isinstance(segmentation, dict):
                found.attributes[CROWD] = TRUE
            self._spool.add(
                number,
                object_id if has_id else -1,  # type: ignore[arg-type]
                found,
                source=self._file_count,
                is_crowd=is_crowd,
                is_preferred=is_preferred,
            )
        if has_crowds and not has_others:
            # Datumaro and CVAT set `iscrowd` of all masks, because they write them as run lengths.
            self._spool.run_length_sources.add(self._file_count)

    def _path_of(self, file_name: str, path: Path, subset: str) -> str:
        """Returns the path of an image relative to the root: the first candidate that exists, or below images/.

        Label Studio writes file names of Windows, and addresses, of which only the last part is a file of the archive.
        """
        folders = (
            self._root / "images" / subset,
            self._root / "images",
            self._root / "data",  # of FiftyOne
            self._root / subset,
            path.parent,
            self._root,
        )
        plain = file_name.replace("\\", "/")
        names = (file_name, plain, plain.rpartition("/")[2] if "://" in plain or plain[0] == "/" else plain)
        candidates = [Path(f"{folder}/{name}") for name in dict.fromkeys(names) for folder in folders]
        found = next((candidate for candidate in candidates if candidate.is_file()), candidates[1]).resolve()
        if not found.is_relative_to(self._root.resolve()):
            _refuse(f"the archive refers to {file_name!r}, which is outside of the archive")
        return str(found.relative_to(self._root.resolve()))

    def _size_of(self, image: _Image) -> tuple[int, int] | None:
        """Returns height and width from the annotation file, else from the header of the image."""
        if image.width_px and image.height_px:
            return image.height_px, image.width_px
        try:
            with (self._root / image.path).open("rb") as file:
                header = split_file(file.read(IMAGE_BYTES_MAX + 1)).header
        except (InvalidArgument, OSError):
            return None
        return header.height_px, header.width_px


def _listed(path: Path, field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects of a list of an annotation file with their indices."""
    with path.open("rb") as file:
        for index, said in enumerate(ijson.items(file, f"{field}.item", use_float=True)):
            if not isinstance(said, dict):
                _refuse(f"{path.name}: {field}[{index}] is not an object")
            yield index, said


def _has_lists(path: Path) -> bool:
    """Whether a file has the lists of an annotation file: images, and annotations or categories."""
    found = set[str]()
    try:
        with path.open("rb") as file:
            for prefix, event, _ in ijson.parse(file):
                if prefix in _LISTS and event == "start_array":
                    found.add(prefix)
                    if "images" in found and len(found) > 1:
                        return True
                elif not prefix and event not in ("start_map", "map_key"):
                    return False
    except (ijson.JSONError, UnicodeDecodeError, RecursionError):
        return False
    return False


def _categories(path: Path, name: str) -> Iterator[tuple[Any, Category]]:
    for index, said in _listed(path, "categories"):
        where = f"{name}: categories[{index}]"
        keypoints = said.get("keypoints") or []
        if not isinstance(said.get("name"), str) or not said["name"]:
            _refuse(f"{where} has no name")
        if not isinstance(keypoints, list) or not all(isinstance(label, str) for label in keypoints):
            _refuse(f"{where} has keypoints that are not a list of names")
        yield _id_of(said, "id", where), Category(said["name"], keypoints)


def _id_of(said: Mapping[str, Any], field: str, where: str) -> Any:
    value = said.get(field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        _refuse(f"{where} has no {field}, or one that is neither a whole number nor text")
    return value


def _size(said: Mapping[str, Any], side: str, where: str) -> int:
    """Returns a side of an image; 0 if it is not stated. Some tools write whole numbers as 640.0."""
    value = said.get(side) or 0
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole or not 0 <= value < 2**31:
        _refuse(f"{where} has the {side} {value!r}; write a whole number of pixels")
    return int(value)


def _refuse(why: str) -> NoReturn:
    raise UnreadableArchiveError(why)
