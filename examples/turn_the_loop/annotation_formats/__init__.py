"""Reads folders with boxes in the formats of detection data sets: COCO, Pascal VOC and YOLO."""

from pathlib import Path

from photographs import Photographs

from annotation_formats.coco import read_coco
from annotation_formats.voc import read_voc
from annotation_formats.yolo import read_yolo

__all__ = ["read_boxes"]

_FORMATS = {"COCO": read_coco, "Pascal VOC": read_voc, "YOLO": read_yolo}


def read_boxes(folder: Path) -> tuple[str, Photographs] | None:
    """Returns the name of the format and the images of a folder; None if it has none of the formats.

    Raises:
        ValueError: an annotation file cannot be read; the message names it.
    """
    for name, read in _FORMATS.items():
        found = read(folder)
        if found is not None:
            return name, found
    return None
