"""Pascal VOC: an XML file per image, with `bndbox` in pixels that are counted from 1, both corners inclusive."""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import parse

from annotation_formats.raw_images import RawImage, RawObject, image_files, is_test


def read_voc(folder: Path) -> list[RawImage]:
    """Reads all annotation files below the folder. `ImageSets/Main/test.txt`, or else the folder of the image, makes the test split.

    Raises:
        ValueError: an annotation file is not XML, or lacks a coordinate.
    """
    files = [file for file in sorted(folder.rglob("*.xml")) if b"<annotation" in file.read_bytes()[:1024]]
    if not files:
        return []
    images = image_files(folder)
    by_stem = {(path.parent, path.stem): path for path in images} | {(folder, path.stem): path for path in images}
    listed = names_of_test(folder, "Main")
    found = []
    for file in files:
        path = by_stem.get((file.parent, file.stem)) or by_stem.get((folder, file.stem))
        if path:
            in_test = path.stem in listed if listed else is_test(path, folder)
            found.append(RawImage(path, _objects(file), in_test))
    return found


def names_of_test(folder: Path, of: str) -> set[str]:
    """Returns the names of the images that `ImageSets/Main/test.txt`, or that of another list, contains."""
    return {name for file in folder.rglob(f"ImageSets/{of}/test.txt") for name in file.read_text().split()}


def _objects(file: Path) -> list[RawObject]:
    try:
        root = parse(file).getroot()
        return [RawObject(_text(thing, "name"), _corners(thing)) for thing in root.iter("object")]
    except (ParseError, ValueError) as error:
        raise ValueError(f"{file} is not a valid Pascal VOC file: {error}") from error


def _corners(thing: Element) -> tuple[float, float, float, float]:
    x_min, y_min, x_max, y_max = (float(_text(thing, f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax"))
    return x_min - 1, y_min - 1, x_max, y_max


def _text(thing: Element, path: str) -> str:
    text = thing.findtext(path)
    if not text:
        raise ValueError(f"an object has no {path}")
    return text.strip()
