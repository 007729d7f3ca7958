"""The image folder layout: one folder per class, optionally below the folders train, val and test.

An image with several labels is stored in the folder of each label. The reader merges files with the same content into one image.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vesta_contracts.common.v1 import Annotation, ImageLabel

from vesta_datasets.archives.layout import (
    ArchivedItem,
    cannot_hold,
    has_a_meaning,
    is_hidden_name,
    parse_split,
)
from vesta_datasets.archives.zip_writer import ZipWriter
from vesta_datasets.items.annotations import concepts_of

UNDECIDED_FOLDER = "no_label"
"""The folder in which other tools store images without labels."""
_FOLDER_NAME = re.compile(r"[^./\\\x00][^/\\\x00]*")
_FOLDER_NAME_BYTES_MAX = 255

Parts = tuple[str, ...]


def read_folders(digests: Mapping[str, str], folder: Path) -> list[ArchivedItem]:
    """Returns all files of an archive that are not hidden, ordered by name. Whether a file is an image is checked later, by its content.

    Args:
        digests: of the files, by their paths in the archive.
        folder: of the files. They need not be there.
    """
    by_parts = {tuple(path.split("/")): digest for path, digest in digests.items()}
    files = sorted(parts for parts in by_parts if not any(map(is_hidden_name, parts)))
    wrappers = _wrappers(files)
    inside = {parts: parts[wrappers:] for parts in files}
    meanings = _meanings({parts[:-1] for parts in inside.values()})
    concepts: dict[str, set[str]] = {}  # of all files with the same content
    for parts in files:
        concepts.setdefault(by_parts[parts], set()).update(meanings[inside[parts][:-1]].concepts)
    labels = {
        found: [_label(concept) for concept in found] for found in {tuple(sorted(found)) for found in concepts.values()}
    }
    labels_of = {digest: labels[tuple(sorted(found))] or None for digest, found in concepts.items()}
    return [
        ArchivedItem(
            "/".join(inside[parts]),
            folder.joinpath(*parts),
            meanings[inside[parts][:-1]].split,
            labels_of[by_parts[parts]],
            sha256=by_parts[parts],
        )
        for parts in files
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


def _wrappers(files: Sequence[Parts]) -> int:
    """Returns how many folders wrap the content of an archive, as many tools do: each contains only the next one, and that has folders."""
    count = 0
    while len({parts[count : count + 1] for parts in files}) == 1 and all(len(parts) > count + 1 for parts in files):
        if has_a_meaning(files[0][count]) or all(len(parts) == count + 2 for parts in files):
            break
        count += 1
    return count


class _Meaning(NamedTuple):
    """What the place of a file states about its image.

    Attributes:
        split: empty if none.
        concepts: none or one.
    """

    split: str
    concepts: tuple[str, ...]


def _meanings(folders: Collection[Parts]) -> dict[Parts, _Meaning]:
    """Returns the meaning of each folder with files, given as the parts of its path in the content of the archive."""
    tops = {parts[0] for parts in folders if parts}
    split_folders = {top for top in tops if parse_split(top)}
    has_splits = bool(split_folders) and (
        split_folders == tops or any(len(parts) > 1 and parts[0] in split_folders for parts in folders)
    )
    return {parts: _meaning(parts, has_splits=has_splits) for parts in folders}


def _meaning(folders: Parts, *, has_splits: bool) -> _Meaning:
    split = parse_split(folders[0]) if has_splits and folders else ""
    concept = "/".join(folders[1:] if split else () if has_splits else folders)
    return _Meaning(split, () if concept in ("", UNDECIDED_FOLDER) else (concept,))


def _label(concept: str) -> Annotation:
    return Annotation(concept=concept, image_label=ImageLabel())
