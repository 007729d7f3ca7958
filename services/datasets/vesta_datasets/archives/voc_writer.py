"""Writes the Pascal VOC layout in bounded memory; see `voc.py`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from vesta_common.media.mask_runs import area, covered, edges_of
from vesta_contracts.common.v1 import Annotation

from vesta_datasets.archives.layout import TRUE, VOC_FLAGS, ArchivedItem, cannot_hold
from vesta_datasets.archives.split_lines import SplitLines
from vesta_datasets.archives.voc_masks import (
    BACKGROUND,
    CLASS_FOLDER,
    LABEL_MAP,
    NUMBERS_MAX,
    OBJECT_FOLDER,
    colour,
    written_masks,
)
from vesta_datasets.archives.zip_writer import ZipWriter
from vesta_datasets.items.bounding_boxes import bounding_box


class VocWriter:
    """Writes images with boxes or masks to an archive. `finish` writes the lists of the splits. On exit, temporary files are deleted.

    Args:
        concepts: all concepts that the images can have.
        folder: for temporary files.
    """

    def __init__(self, archive: ZipWriter, concepts: Iterable[str], folder: Path) -> None:
        self._archive = archive
        self._numbers = {concept: number for number, concept in enumerate(concepts, 1)}
        self._lists = SplitLines(folder)
        self._lists_of_masks = SplitLines(folder)

    def __enter__(self) -> "VocWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._lists.__exit__(*error)
        self._lists_of_masks.__exit__(*error)

    def add(self, item: ArchivedItem) -> None:
        """Writes an image.

        Raises:
            FailedPrecondition: FORMAT_CANNOT_REPRESENT, the image has masks, and there are too many concepts.
        """
        split = {"VALIDATION": "val", "TEST": "test"}.get(item.split, "train")
        self._archive.write(item.path, f"JPEGImages/{item.path.name}")
        self._archive.writestr(f"Annotations/{item.path.stem}.xml", _xml(item))
        self._lists.add(split, item.path.stem)
        if item.annotations and item.annotations[0].HasField("mask"):
            if len(self._numbers) > NUMBERS_MAX:
                raise cannot_hold(item, f"masks of a dataset with {len(self._numbers)} concepts", _HOLDS)
            of_classes, of_objects = written_masks(item.annotations, self._numbers)
            self._archive.writestr(f"{CLASS_FOLDER}/{item.path.stem}.png", of_classes)
            self._archive.writestr(f"{OBJECT_FOLDER}/{item.path.stem}.png", of_objects)
            self._lists_of_masks.add(split, item.path.stem)

    def finish(self) -> None:
        """Writes the lists of the splits, and the list of the concepts, which Datumaro and CVAT need."""
        colours = {
            concept: ",".join(map(str, colour(number)))
            for concept, number in self._numbers.items()
            if number <= NUMBERS_MAX
        }
        labels = "".join(f"{concept}:{colours.get(concept, '')}::\n" for concept in self._numbers)
        self._archive.writestr(LABEL_MAP, f"# label:color_rgb:parts:actions\nbackground:0,0,0::\n{labels}")
        for folder, lists in (("Main", self._lists), ("Segmentation", self._lists_of_masks)):
            for split in lists.splits:
                with self._archive.open(f"ImageSets/{folder}/{split}.txt", "w", force_zip64=True) as file:
                    lists.copy_to(split, file)


_HOLDS: Final = (
    f"Pascal VOC represents boxes, or masks of at most {NUMBERS_MAX} objects and concepts that do not overlap, with the attributes "
    f"pose and {', '.join(VOC_FLAGS)}. COCO represents more"
)


def check_for_voc(item: ArchivedItem) -> None:
    """Rejects annotations that Pascal VOC cannot represent."""
    annotations = item.annotations or ()
    for annotation in annotations:
        shape = str(annotation.WhichOneof("shape")).replace("_", " ")
        if shape not in ("box", "mask"):
            raise cannot_hold(item, f"a {shape}", _HOLDS)
        for name, value in annotation.attributes.items():
            if not (
                (name in VOC_FLAGS and value == TRUE) or (name == "pose" and value.strip() == value and _is_pose(value))
            ):
                raise cannot_hold(item, f"a {shape} with the attribute {name} = {value!r}", _HOLDS)
        if annotation.concept.strip() != annotation.concept or not annotation.concept.isprintable():
            raise cannot_hold(item, f"the concept {annotation.concept!r}, which XML changes", _HOLDS)
    masks = [one for one in annotations if one.HasField("mask")]
    if masks:
        _check_masks(item, masks, len(annotations))


def _check_masks(item: ArchivedItem, masks: Sequence[Annotation], count: int) -> None:
    edges = [edges_of(one.mask) for one in masks]
    changed = next((one.concept for one in masks if ":" in one.concept or one.concept[0] == "#"), None)
    if len(masks) < count:
        raise cannot_hold(item, "a box and a mask", _HOLDS)
    if len(masks) > NUMBERS_MAX:
        raise cannot_hold(item, f"{len(masks)} masks", _HOLDS)
    if not all(map(area, edges)):
        raise cannot_hold(item, "a mask without pixels", _HOLDS)
    if sum(map(area, edges)) > area(covered(edges, 1)):
        raise cannot_hold(item, "masks that overlap", _HOLDS)
    if changed is not None or any(one.concept == BACKGROUND for one in masks):
        raise cannot_hold(item, f"a mask of the concept {changed or BACKGROUND!r}, which {LABEL_MAP} changes", _HOLDS)


def _is_pose(value: str) -> bool:
    return value.isprintable() and value.lower() not in ("", "unspecified", "unknown")


def _xml(item: ArchivedItem) -> bytes:
    root = ElementTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", item.path.name)
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", item.width_px), ("height", item.height_px), ("depth", 3)):
        _add(size, name, str(value))
    _add(root, "segmented", str(int(any(annotation.HasField("mask") for annotation in item.annotations or ()))))
    for annotation in item.annotations or ():
        _add_object(root, annotation)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8"))


def _add_object(root: ElementTree.Element, annotation: Annotation) -> None:
    element = ElementTree.SubElement(root, "object")
    _add(element, "name", annotation.concept)
    _add(element, "pose", annotation.attributes.get("pose", "Unspecified"))
    for flag in VOC_FLAGS:
        _add(element, flag, str(int(flag in annotation.attributes)))
    box, found = ElementTree.SubElement(element, "bndbox"), bounding_box(annotation) or annotation.box
    corners = {"xmin": found.x_min_px, "ymin": found.y_min_px, "xmax": found.x_max_px, "ymax": found.y_max_px}
    for name, value in corners.items():
        _add(box, name, f"{value:.17g}")


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text
