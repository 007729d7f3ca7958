"""Reads folders in the formats of detection and segmentation data sets: COCO, Pascal VOC and YOLO."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from boxes import SizePx, image_size
from photographs import Photograph, Photographs, set_name
from vesta_contracts.common.v1 import Annotation, TaskType

from annotation_formats.coco import read_coco
from annotation_formats.raw_images import RawImage, RawObject
from annotation_formats.voc import read_voc
from annotation_formats.voc_masks import read_voc_masks
from annotation_formats.yolo import read_yolo

__all__ = ["RawImage", "RawObject", "read_annotated"]

Convert = Callable[[Sequence[RawObject], SizePx], Sequence[Annotation]]
"""Returns the annotations of an image of a width and height from its objects."""

_FORMATS: Final[Mapping[str, Callable[[Path], list[RawImage]]]] = MappingProxyType(
    {"COCO": read_coco, "Pascal VOC": read_voc, "Pascal VOC with masks": read_voc_masks, "YOLO": read_yolo}
)


def read_annotated(folder: Path, task_type: TaskType.ValueType, convert: Convert) -> tuple[str, Photographs] | None:
    """Returns the name of the format and the images of a folder; None if no format has annotations of the task type.

    Raises:
        ValueError: an annotation file cannot be read; the message names it.
    """
    for name, read in _FORMATS.items():
        found = _photographs(folder, read(folder), task_type, convert)
        if found.labels:
            return name, found
    return None


def _photographs(
    folder: Path, images: Sequence[RawImage], task_type: TaskType.ValueType, convert: Convert
) -> Photographs:
    pool: list[Photograph] = []
    test: list[Photograph] = []
    for image in images:
        try:
            size_px = image_size(image.path)
        except OSError:  # not an image
            continue
        photograph = Photograph(image.path, tuple(convert(image.objects, size_px)))
        (test if image.in_test else pool).append(photograph)
    return Photographs(set_name(folder), pool, test, task_type)
