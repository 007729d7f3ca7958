"""The YOLO layout: the names of the classes (`yolo_config.py`), and a text file of rows for each image. `yolo_writer.py` writes it.

The rows (`yolo_rows.py`) of images/a/b.jpg are in labels/a/b.txt, or beside the image. An image with an empty file shows none of the
concepts; an image without a file is not annotated.

This module runs in a sandboxed child process that can access only the archive's folder (`vesta_common.sandbox`).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from vesta_contracts.datasets.v1 import AnnotationList

from vesta_datasets.archives.entries import Entry
from vesta_datasets.archives.layout import UnreadableArchiveError, image_files, parse_split
from vesta_datasets.archives.yolo_config import find_config, resolved, rows_of
from vesta_datasets.archives.yolo_rows import ROTATED_TASK, FlawedRowError, RowReader, class_names, keypoint_layout

_LABELS_BYTES_MAX: Final = 64 * 1024 * 1024
_SPLITS: Final = {"train": "TRAIN", "val": "VALIDATION", "valid": "VALIDATION", "test": "TEST"}


def read_yolo(root: Path, shapes: Collection[str]) -> Iterator[tuple[Entry, bytes]]:
    """Yields the images of the archive, ordered by path: those of the splits in the configuration, or all if it names none.

    A file of rows without its image yields an image that the archive lacks.

    Args:
        shapes: that the importing dataset allows; see `RowReader`.

    Raises:
        UnreadableArchiveError: nothing names the classes, or it is invalid; a row has a class that it does not name.
    """
    found = find_config(root)
    if found is None:
        raise UnreadableArchiveError(
            "the archive has none of data.yaml, obj.data and classes.txt with the names of the classes"
        )
    path, config = found
    where = str(path.relative_to(root))
    names = class_names(config, where)
    reader = RowReader(names, keypoint_layout(config, names, where), shapes)
    has_rotated_boxes = config.get("task") == ROTATED_TASK and "rotated_box" in shapes
    splits = _images(root, path, config)
    listed: dict[str, tuple[str, Path | None]] = {}
    used = set[Path]()
    for image, split in splits.items():
        rows = rows_of(root, image)
        used.add(rows)
        listed[str(image.relative_to(root))] = split, rows
    for folder in {rows.parent for rows in used if "labels" in rows.relative_to(root).parts[:-1]}:
        for lost in set(folder.glob("*.txt")) - used:
            listed[str(_image_of(root, lost))] = "", None
    for name in sorted(listed):
        split, labels = listed[name]
        entry, annotations = _entry(root, name, split, labels, reader)
        yield replace(entry, has_rotated_boxes=has_rotated_boxes), annotations


def _entry(root: Path, name: str, split: str, labels: Path | None, reader: RowReader) -> tuple[Entry, bytes]:
    if labels is None or not labels.is_file():
        return Entry(name, split), b""
    where = str(labels.relative_to(root))
    if labels.stat().st_size > _LABELS_BYTES_MAX:
        return Entry(name, split, flaw=f"is rejected, because {where} has more than {_LABELS_BYTES_MAX} bytes"), b""
    annotations = AnnotationList()
    try:
        lines = labels.read_text("utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if values := line.split():
                annotations.annotations.append(reader.annotation(values, f"{where}: row {number}"))
    except UnicodeDecodeError:
        return Entry(name, split, flaw=f"is rejected, because {where} is not text"), b""
    except FlawedRowError as error:
        return Entry(name, split, flaw=f"is rejected, because {error}"), b""
    return Entry(name, split, is_annotated=True, is_normalized=True), annotations.SerializeToString()


def _images(root: Path, config_path: Path, config: Mapping[str, Any]) -> dict[Path, str]:
    """Returns the images with their splits."""
    places = [
        (place, split, key)
        for key, split in _SPLITS.items()
        for place in _as_list(config.get(key), f"{config_path.relative_to(root)}: {key}")
    ]
    if not places:
        return {image: _split_of(image.relative_to(root)) for image in image_files(root)}
    images: dict[Path, str] = {}
    for place, split, key in places:
        found = resolved(root, config_path.parent, str(config.get("path") or ""), place)
        if found is None:
            raise UnreadableArchiveError(
                f"{config_path.relative_to(root)} names {key}: {place}, which is not in the archive; add it, or remove the line"
            )
        for image in image_files(found) if found.is_dir() else _listed_images(root, found):
            images.setdefault(image, split)
    return images


def _as_list(said: Any, where: str) -> list[str]:
    places = said if isinstance(said, list) else [said] if said else []
    if not all(isinstance(place, str) for place in places):
        raise UnreadableArchiveError(f"{where} must be a folder or a text file, or a list of them")
    return [place for place in places if place]


def _listed_images(root: Path, file: Path) -> Iterator[Path]:
    """Yields the images that a text file lists, one per line, whether or not they exist."""
    for line in file.read_text("utf-8", "replace").splitlines():
        if place := line.strip():
            yield resolved(root, file.parent, "", place) or root.joinpath(
                *Path(place).parts[1:] if place[0] == "/" else [place]
            )


def _image_of(root: Path, rows: Path) -> Path:
    """Returns the path of the image that a file of rows belongs to, without its suffix."""
    parts = list(rows.relative_to(root).with_suffix("").parts)
    last = len(parts) - 1 - parts[::-1].index("labels")
    return Path(*parts[:last], "images", *parts[last + 1 :])


def _split_of(path: Path) -> str:
    return next(filter(None, (parse_split(part) for part in path.parts[:-1])), "")
