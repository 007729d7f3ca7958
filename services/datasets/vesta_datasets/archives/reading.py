"""Reads unpacked archives of any layout, and detects layouts.

This module runs in a sandboxed child process that can access only the archive's folder (`vesta_common.sandbox`).
"""

from pathlib import Path
from typing import Final

from vesta_contracts.datasets.v1 import ArchiveFormat

from vesta_datasets.archives import coco, voc, voc_masks, yolo, yolo_config
from vesta_datasets.archives.entries import write_entries
from vesta_datasets.archives.layout import UnreadableArchiveError

FORMAT_NAMES: Final = {
    ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER: "a folder for each class",
    ArchiveFormat.ARCHIVE_FORMAT_COCO: "COCO",
    ArchiveFormat.ARCHIVE_FORMAT_YOLO: "YOLO",
    ArchiveFormat.ARCHIVE_FORMAT_PASCAL_VOC: "Pascal VOC",
}


def read_archive(folder: Path, request: tuple[str, str, ArchiveFormat.ValueType, tuple[str, ...]]) -> tuple[int, int]:
    """Writes the images of an archive to a file. Returns the layout and the number of images; class folders are left to the caller.

    Args:
        folder: of the call, with the unpacked archive in a folder of its own.
        request: the name of that folder; the name of the file to write; the expected layout, unspecified to detect it; the shapes that the
            importing dataset allows.

    Raises:
        UnreadableArchiveError: the archive is invalid, or has another layout.
    """
    root_name, entries, expected, shapes = request
    root = (folder / root_name).resolve()
    try:
        layout = expected or detected(root)
        if layout == ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER:
            return layout, 0
        if layout == ArchiveFormat.ARCHIVE_FORMAT_COCO:
            images = coco.read_coco(root, shapes, folder)
        elif layout == ArchiveFormat.ARCHIVE_FORMAT_YOLO:
            images = yolo.read_yolo(root, shapes)
        else:
            images = voc.read_voc(root, shapes)
        return layout, write_entries(folder / entries, images)
    except UnreadableArchiveError as error:
        found = detected(root) if expected else expected
        if found not in (expected, ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER):
            raise UnreadableArchiveError(f"{error.message}; the archive looks like {FORMAT_NAMES[found]}") from error
        raise
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise UnreadableArchiveError(f"the archive cannot be read: {error}") from error


def detected(root: Path) -> ArchiveFormat.ValueType:
    """Returns the layout of an unpacked archive. What looks like no other is class folders."""
    if coco.annotation_files(root):
        return ArchiveFormat.ARCHIVE_FORMAT_COCO
    if yolo_config.find_config(root):
        return ArchiveFormat.ARCHIVE_FORMAT_YOLO
    if voc.annotation_files(root) or voc_masks.class_files(root):
        return ArchiveFormat.ARCHIVE_FORMAT_PASCAL_VOC
    return ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER
