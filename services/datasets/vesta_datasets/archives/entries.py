"""The images of an unpacked archive, in a file that the child process writes and the service reads one by one.

Neither process has all annotations in memory. The service checks every length and path, because the child has read untrusted bytes.
"""

import json
import os
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from google.protobuf.message import DecodeError
from vesta_contracts.datasets.v1 import AnnotationList

from vesta_datasets.archives.layout import ArchivedItem, UnreadableArchiveError

_LENGTHS: Final = struct.Struct("<II")
_HEADER_BYTES_MAX: Final = 64 * 1024
_ANNOTATIONS_BYTES_MAX: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of an archive.

    Attributes:
        path: relative to the root of the archive. The archive may lack the file.
        split: TRAIN, VALIDATION or TEST; empty if the archive does not specify it.
        is_annotated: whether the archive has annotations of the image; with none, it shows "none of the concepts".
        flaw: why the image cannot be imported, as the end of a sentence that begins with its name; empty if it can.
        width_px, height_px: as the archive states them; 0 if it does not.
        is_normalized: whether coordinates are shares of width and height instead of pixels.
        has_rotated_boxes: whether polygons are the corners of rotated boxes.
    """

    path: str
    split: str = ""
    is_annotated: bool = False
    flaw: str = ""
    width_px: int = 0
    height_px: int = 0
    is_normalized: bool = False
    has_rotated_boxes: bool = False


def write_entries(file: Path, entries: Iterable[tuple[Entry, bytes]]) -> int:
    """Writes entries, each with its serialised AnnotationList. Returns their number."""
    count = 0
    with file.open("xb") as target:
        for entry, annotations in entries:
            header = json.dumps(asdict(entry)).encode()
            target.write(_LENGTHS.pack(len(header), len(annotations)) + header + annotations)
            count += 1
    return count


class Entries(Collection[ArchivedItem]):
    """The images of an unpacked archive, in the order of their paths. Each iteration reads the file again.

    Args:
        file: written by `write_entries`.
        root: of the unpacked archive.
        count: of the entries.
    """

    def __init__(self, file: Path, root: Path, count: int) -> None:
        self._file = file
        self._root = root.resolve()
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __contains__(self, item: object) -> bool:
        return any(item == own for own in self)

    def __iter__(self) -> Iterator[ArchivedItem]:
        """Yields the images.

        Raises:
            UnreadableArchiveError: an entry is damaged, or refers to a file outside of the archive.
        """
        with os.fdopen(os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
            while lengths := source.read(_LENGTHS.size):
                yield self._item(source, lengths)

    def _item(self, source: IO[bytes], lengths: bytes) -> ArchivedItem:
        try:
            header_bytes, annotation_bytes = _LENGTHS.unpack(lengths)
            entry = Entry(**json.loads(source.read(min(header_bytes, _HEADER_BYTES_MAX))))
            annotations = AnnotationList.FromString(
                source.read(min(annotation_bytes, _ANNOTATIONS_BYTES_MAX))
            ).annotations
        except (struct.error, ValueError, TypeError, DecodeError) as error:
            raise UnreadableArchiveError("an image of the archive has too many annotations, or damaged ones") from error
        path = (self._root / entry.path).resolve()
        if not path.is_relative_to(self._root):
            raise UnreadableArchiveError(f"the archive refers to {entry.path!r}, which is outside of the archive")
        return ArchivedItem(
            file_name=entry.path,
            path=path,
            split=entry.split,
            annotations=annotations if entry.is_annotated else None,
            width_px=entry.width_px,
            height_px=entry.height_px,
            flaw=entry.flaw,
            is_normalized=entry.is_normalized,
            has_rotated_boxes=entry.has_rotated_boxes,
        )
