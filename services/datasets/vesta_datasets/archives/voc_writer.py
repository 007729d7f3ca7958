"""Writes the Pascal VOC layout in bounded memory; see `voc.py`."""

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from vesta_contracts.common.v1 import Annotation

from vesta_datasets.archives.layout import TRUE, VOC_FLAGS, ArchivedItem, cannot_hold
from vesta_datasets.archives.split_lines import SplitLines
from vesta_datasets.archives.zip_writer import ZipWriter


class VocWriter:
    """Writes images with boxes to an archive. `finish` writes the lists of the splits. On exit, temporary files are deleted.

    Args:
        concepts: all concepts that the images can have.
        folder: for temporary files.
    """

    def __init__(self, archive: ZipWriter, concepts: Iterable[str], folder: Path) -> None:
        self._archive = archive
        self._concepts = list(concepts)
        self._lists = SplitLines(folder)

    def __enter__(self) -> "VocWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._lists.__exit__(*error)

    def add(self, item: ArchivedItem) -> None:
        """Writes an image."""
        self._archive.write(item.path, f"JPEGImages/{item.path.name}")
        self._archive.writestr(f"Annotations/{item.path.stem}.xml", _xml(item))
        self._lists.add({"VALIDATION": "val", "TEST": "test"}.get(item.split, "train"), item.path.stem)

    def finish(self) -> None:
        """Writes the lists of the splits, and the list of the concepts, which Datumaro and CVAT need."""
        labels = "".join(f"{concept}:::\n" for concept in self._concepts)
        self._archive.writestr("labelmap.txt", f"# label:color_rgb:parts:actions\n{labels}")
        for split in self._lists.splits:
            with self._archive.open(f"ImageSets/Main/{split}.txt", "w", force_zip64=True) as file:
                self._lists.copy_to(split, file)


def check_for_voc(item: ArchivedItem) -> None:
    """Rejects annotations that Pascal VOC cannot represent."""
    holds = f"Pascal VOC represents boxes with the attributes pose and {', '.join(VOC_FLAGS)}. COCO represents more"
    for annotation in item.annotations or ():
        if not annotation.HasField("box"):
            raise cannot_hold(item, f"a {str(annotation.WhichOneof('shape')).replace('_', ' ')}", holds)
        for name, value in annotation.attributes.items():
            if not (
                (name in VOC_FLAGS and value == TRUE) or (name == "pose" and value.strip() == value and _is_pose(value))
            ):
                raise cannot_hold(item, f"a box with the attribute {name} = {value!r}", holds)
        if annotation.concept.strip() != annotation.concept or not annotation.concept.isprintable():
            raise cannot_hold(item, f"the concept {annotation.concept!r}, which XML changes", holds)


def _is_pose(value: str) -> bool:
    return value.isprintable() and value.lower() not in ("", "unspecified", "unknown")


def _xml(item: ArchivedItem) -> bytes:
    root = ElementTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", item.path.name)
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", item.width_px), ("height", item.height_px), ("depth", 3)):
        _add(size, name, str(value))
    _add(root, "segmented", "0")
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
    box, found = ElementTree.SubElement(element, "bndbox"), annotation.box
    corners = {"xmin": found.x_min_px, "ymin": found.y_min_px, "xmax": found.x_max_px, "ymax": found.y_max_px}
    for name, value in corners.items():
        _add(box, name, f"{value:.17g}")


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text
