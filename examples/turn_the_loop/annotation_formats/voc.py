"""Pascal VOC: an XML file per image, with `bndbox` in pixels that are counted from 1, both corners inclusive."""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import parse
from photographs import Photograph, Photographs

from annotation_formats.boxed_images import RawBox, boxed_image, boxed_images, image_files, is_test


def read_voc(folder: Path) -> Photographs | None:
    """Reads all annotation files below the folder. `ImageSets/Main/test.txt`, or else the folder of the image, makes the test split.

    Returns:
        None if there is no such file, or no object.

    Raises:
        ValueError: an annotation file is not XML, or lacks a coordinate.
    """
    files = [file for file in sorted(folder.rglob("*.xml")) if b"<annotation" in file.read_bytes()[:1024]]
    if not files:
        return None
    images = image_files(folder)
    by_stem = {(path.parent, path.stem): path for path in images} | {(folder, path.stem): path for path in images}
    listed = {name for file in folder.rglob("ImageSets/Main/test.txt") for name in file.read_text().split()}
    pool: list[Photograph | None] = []
    test: list[Photograph | None] = []
    for file in files:
        path = by_stem.get((file.parent, file.stem)) or by_stem.get((folder, file.stem))
        if path:
            in_test = path.stem in listed if listed else is_test(path, folder)
            (test if in_test else pool).append(boxed_image(path, _boxes(file)))
    return boxed_images(folder, pool, test)


def _boxes(file: Path) -> list[RawBox]:
    try:
        root = parse(file).getroot()
        return [(_text(thing, "name"), _corners(thing)) for thing in root.iter("object")]
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
