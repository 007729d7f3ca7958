"""The YOLO layout: data.yaml with the names of the classes, and a text file of rows for each image. `yolo_writer.py` writes it.

The rows (`yolo_rows.py`) of images/a/b.jpg are in labels/a/b.txt, or beside the image. An image with an empty file shows none of the
concepts; an image without a file is not annotated.

This module runs in a sandboxed child process that can access only the archive's folder (`vesta_common.sandbox`).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml
from vesta_contracts.datasets.v1 import AnnotationList

from vesta_datasets.archives.entries import Entry
from vesta_datasets.archives.layout import UnreadableArchiveError, image_files, is_hidden, parse_split
from vesta_datasets.archives.yolo_rows import ROTATED_TASK, FlawedRowError, RowReader, class_names, keypoint_layout

_CONFIG_BYTES_MAX: Final = 1024 * 1024
_LABELS_BYTES_MAX: Final = 64 * 1024 * 1024
_SPLITS: Final = {"train": "TRAIN", "val": "VALIDATION", "valid": "VALIDATION", "test": "TEST"}


def find_config(root: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """Returns the file with the names of the classes and its content: the one nearest to the root.

    Raises:
        UnreadableArchiveError: data.yaml is not valid YAML.
    """
    files = [
        path
        for path in root.rglob("*.y*ml")
        if path.suffix in {".yaml", ".yml"} and not is_hidden(path.relative_to(root))
    ]
    for path in sorted(files, key=lambda path: (len(path.parts), path.stem != "data", path)):
        if path.stat().st_size > _CONFIG_BYTES_MAX:
            continue
        try:
            content = yaml.load(path.read_bytes(), yaml.BaseLoader)  # noqa: S506 - the base loader creates texts, lists and dicts alone
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            if path.stem != "data":
                continue
            raise UnreadableArchiveError(f"{path.relative_to(root)} is not valid YAML: {error}") from error
        if isinstance(content, dict) and content.get("names"):
            return path, content
    return None


def read_yolo(root: Path, shapes: Collection[str]) -> Iterator[tuple[Entry, bytes]]:
    """Yields the images of the archive, ordered by path: those of the splits in data.yaml, or all if it names none.

    A file of rows without its image yields an image that the archive lacks.

    Args:
        shapes: that the importing dataset allows; see `RowReader`.

    Raises:
        UnreadableArchiveError: there is no data.yaml, or it is invalid; a row has a class that it does not name.
    """
    found = find_config(root)
    if found is None:
        raise UnreadableArchiveError("the archive has no data.yaml with the names of the classes")
    path, config = found
    where = str(path.relative_to(root))
    names = class_names(config, where)
    reader = RowReader(names, keypoint_layout(config, names, where), shapes)
    has_rotated_boxes = config.get("task") == ROTATED_TASK and "rotated_box" in shapes
    splits = _images(root, path, config)
    listed: dict[str, tuple[str, Path | None]] = {}
    used = set[Path]()
    for image, split in splits.items():
        rows = _rows_of(root, image)
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
        found = _resolved(root, config_path.parent, str(config.get("path") or ""), place)
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


def _resolved(root: Path, folder: Path, base: str, place: str) -> Path | None:
    """Returns the folder or list that data.yaml names. It is often relative to a folder outside of the archive, which is removed."""
    inside = [part for part in Path(place).parts if part not in ("..", ".", "/")]
    base_inside = [part for part in Path(base).parts if part not in ("..", ".", "/")]
    starts = [folder.joinpath(*base_inside), folder, root.joinpath(*base_inside), root]
    candidates = [start.joinpath(*inside[skip:]) for skip in range(len(inside)) for start in starts]
    return next((path for path in candidates if path.exists() and path.resolve().is_relative_to(root.resolve())), None)


def _listed_images(root: Path, file: Path) -> Iterator[Path]:
    """Yields the images that a text file lists, one per line, whether or not they exist."""
    for line in file.read_text("utf-8", "replace").splitlines():
        if place := line.strip():
            yield _resolved(root, file.parent, "", place) or root.joinpath(
                *Path(place).parts[1:] if place[0] == "/" else [place]
            )


def _rows_of(root: Path, image: Path) -> Path:
    """Returns the file of the rows of an image, which may not exist."""
    beside = image.with_suffix(".txt")
    parts = list(image.relative_to(root).parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        apart = root.joinpath(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
        return apart if apart.is_file() or not beside.is_file() else beside
    return beside


def _image_of(root: Path, rows: Path) -> Path:
    """Returns the path of the image that a file of rows belongs to, without its suffix."""
    parts = list(rows.relative_to(root).with_suffix("").parts)
    last = len(parts) - 1 - parts[::-1].index("labels")
    return Path(*parts[:last], "images", *parts[last + 1 :])


def _split_of(path: Path) -> str:
    return next(filter(None, (parse_split(part) for part in path.parts[:-1])), "")
