"""The image folder layout: one folder per class, optionally below the folders train, val and test.

An image with several labels is stored in the folder of each label. The reader merges files with the same content into one image.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vesta_contracts.common.v1 import Annotation, ImageLabel

from vesta_datasets.archives.layout import (
    ArchivedItem,
    cannot_hold,
    is_hidden,
    is_hidden_name,
    parse_split,
    sha256_of,
)
from vesta_datasets.archives.zip_writer import ZipWriter
from vesta_datasets.items.annotations import concepts_of

UNDECIDED_FOLDER = "no_label"
"""The folder in which other tools store images without labels."""
_FOLDER_NAME = re.compile(r"[^./\\\x00][^/\\\x00]*")
_FOLDER_NAME_BYTES_MAX = 255


def read_folders(root: Path) -> list[ArchivedItem]:
    """Returns all files below a folder, ordered by name. Whether a file is an image is checked later, by its content."""
    tops = [entry for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.relative_to(root))]
    split_folders = [top for top in tops if parse_split(top.name)]
    has_splits = bool(split_folders) and (
        len(split_folders) == len(tops) or any(_contains_folders(folder) for folder in split_folders)
    )
    files = sorted(_files(root))
    paths = [root.joinpath(*parts) for parts in files]
    digests = [sha256_of(path) for path in paths]
    meanings = {folders: _meaning(folders, has_splits=has_splits) for folders in {parts[:-1] for parts in files}}
    concepts: dict[str, set[str]] = {}  # of all files with the same content
    for parts, digest in zip(files, digests, strict=True):
        concepts.setdefault(digest, set()).update(meanings[parts[:-1]].concepts)
    labels = {
        found: [_label(concept) for concept in found] for found in {tuple(sorted(found)) for found in concepts.values()}
    }
    return [
        ArchivedItem(
            "/".join(parts),
            path,
            meanings[parts[:-1]].split,
            labels[tuple(sorted(concepts[digest]))] or None,
            sha256=digest,
        )
        for parts, path, digest in zip(files, paths, digests, strict=True)
    ]


class FolderWriter:
    """Writes labelled images to an archive."""

    def __init__(self, archive: ZipWriter) -> None:
        self._archive = archive

    def __enter__(self) -> "FolderWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Needs no temporary files."""

    def add(self, item: ArchivedItem) -> None:
        """Writes an image once per class, into the folder of its split and class."""
        for concept in concepts_of(item.annotations or ()):
            self._archive.write(item.path, f"{item.split.lower() or 'train'}/{concept}/{item.path.name}")

    def finish(self) -> None:
        """Has nothing left to write."""


def check_for_folders(item: ArchivedItem) -> None:
    """Rejects an image with a shape, without a concept, or with a concept that is not a valid folder name."""
    holds = "it represents only image labels; COCO also represents boxes, masks, polygons and images without concepts"
    if not item.annotations:
        raise cannot_hold(item, '"none of the concepts" as its answer', holds)
    for annotation in item.annotations:
        if annotation.attributes:
            raise cannot_hold(item, f"an annotation with the attribute {min(annotation.attributes)!r}", "COCO can")
        if not annotation.HasField("image_label"):
            raise cannot_hold(item, f"a {str(annotation.WhichOneof('shape')).replace('_', ' ')}", holds)
        if not _is_folder_name(annotation.concept):
            raise cannot_hold(item, f"the concept {annotation.concept!r}, which is not a valid folder name", "COCO can")


def _is_folder_name(concept: str) -> bool:
    return concept != UNDECIDED_FOLDER and all(
        _FOLDER_NAME.fullmatch(part) and len(part.encode()) <= _FOLDER_NAME_BYTES_MAX and part != "__MACOSX"
        for part in concept.split("/")
    )


def _contains_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in folder.iterdir())


def _files(root: Path) -> Iterator[tuple[str, ...]]:
    """Yields the parts of the path of each file that is not hidden, relative to the root."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_hidden_name(name)]
        above = Path(folder).relative_to(root).parts
        yield from ((*above, name) for name in names if not is_hidden_name(name))


class _Meaning(NamedTuple):
    """What the place of a file states about its image.

    Attributes:
        split: empty if none.
        concepts: none or one.
    """

    split: str
    concepts: tuple[str, ...]


def _meaning(folders: tuple[str, ...], *, has_splits: bool) -> _Meaning:
    split = parse_split(folders[0]) if has_splits and folders else ""
    concept = "/".join(folders[1:] if split else () if has_splits else folders)
    return _Meaning(split, () if concept in ("", UNDECIDED_FOLDER) else (concept,))


def _label(concept: str) -> Annotation:
    return Annotation(concept=concept, image_label=ImageLabel())
