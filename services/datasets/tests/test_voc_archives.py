"""Archives in the layout of Pascal VOC. Bad input is rejected with its place."""

from io import BytesIO
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from archive_builders import put, read_entries
from PIL import Image
from vesta_contracts.common.v1 import (
    Annotation,
    PixelBox,
)
from vesta_datasets.archives import voc
from vesta_datasets.archives.archives import ALL_SHAPES
from vesta_datasets.archives.layout import ArchivedItem, UnreadableArchiveError
from vesta_datasets.archives.masks import pixels_of
from vesta_datasets.archives.voc_masks import colour

VOC_OBJECT = (
    "<object><name>van</name><bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"
)


def read_voc(tmp_path: Path, files: dict[str, str]) -> dict[str, ArchivedItem]:
    root = put(tmp_path / "root", {"JPEGImages/a.jpg": "a", **files})
    return read_entries(root, voc.read_voc(root, ALL_SHAPES))


def an_xml(content: str) -> str:
    return f"<annotation><size><width>64.0</width><height>48</height></size>{content}</annotation>"


def test_voc_files_are_read_with_their_splits_and_attributes(tmp_path: Path) -> None:
    flagged = VOC_OBJECT.replace(
        "<bndbox>", "<pose>Left</pose><difficult>1</difficult><truncated>0</truncated><bndbox>"
    )
    files = {
        "Annotations/a.xml": an_xml(flagged),
        "Annotations/empty.xml": an_xml(""),
        "Annotations/lost.xml": an_xml(""),
        "JPEGImages/empty.PNG": "b",
        "JPEGImages/unlabelled.jpg": "c",
        "ImageSets/Main/val.txt": "a\n",
        "ImageSets/Main/van_val.txt": "empty 1\n",
    }
    found = read_voc(tmp_path, files)
    assert {
        name: (item.split, item.annotations, item.is_there) for name, item in found.items() if "/a" not in name
    } == {
        "JPEGImages/empty.PNG": ("", [], True),
        "JPEGImages/lost.jpg": ("", [], False),
        "JPEGImages/unlabelled.jpg": ("", None, True),
    }
    item = found["JPEGImages/a.jpg"]
    box = PixelBox(x_min_px=1, y_min_px=2.5, x_max_px=9, y_max_px=8)
    attributes = {"difficult": "true", "pose": "Left"}
    assert list(item.annotations or ()) == [Annotation(concept="van", box=box, attributes=attributes)]
    assert (item.split, item.width_px, item.height_px) == ("VALIDATION", 64, 48)


def test_pixels_of_original_voc_archives_are_numbered_from_1(tmp_path: Path) -> None:
    source = "<source><database>The VOC2012 Database</database></source>"
    (item,) = read_voc(tmp_path, {"Annotations/a.xml": an_xml(source + VOC_OBJECT)}).values()
    assert [one.box for one in item.annotations or ()] == [PixelBox(x_min_px=0, y_min_px=1.5, x_max_px=9, y_max_px=8)]


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (BOMB, "declares a document type or entities"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "declares a document type or entities"),
        ("<annotation>", "not valid XML"),
        ("", "not valid XML"),
        ("<html/>", "not a Pascal VOC annotation"),
    ],
)
def test_an_xml_file_that_is_no_annotation_is_rejected(tmp_path: Path, content: str, why: str) -> None:
    with pytest.raises(UnreadableArchiveError, match=why):
        read_voc(tmp_path, {"Annotations/a.xml": content})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (VOC_OBJECT.replace("2.5", "x"), "the bndbox/ymin 'x' for object 1"),
        (VOC_OBJECT.replace("2.5", "inf"), "the bndbox/ymin 'inf' for object 1"),
        (VOC_OBJECT.replace("van", ""), "no name for object 1"),
    ],
)
def test_an_image_with_an_invalid_voc_object_is_rejected(tmp_path: Path, content: str, why: str) -> None:
    (item,) = read_voc(tmp_path, {"Annotations/a.xml": an_xml(content)}).values()
    assert item.annotations is None
    assert why in item.flaw


def a_mask(pixels: np.ndarray, mode: str = "P", palette: dict[int, tuple[int, int, int]] | None = None) -> bytes:
    """Returns a PNG file; in mode P with the palette of the original archives, except for the given entries."""
    image = Image.fromarray(pixels, mode)
    if mode == "P":
        image.putpalette([value for number in range(256) for value in (palette or {}).get(number, colour(number))])
    target = BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def two_objects(first: int = 7, second: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of classes and objects of an image with two objects, of which the first has void pixels around it."""
    classes, objects = np.zeros((48, 64), np.uint8), np.zeros((48, 64), np.uint8)
    classes[1:9, 1:9] = objects[1:9, 1:9] = 255
    classes[2:8, 2:8], objects[2:8, 2:8] = first, 1
    classes[20:30, 20:40], objects[20:30, 20:40] = second, 2
    return classes, objects


def read_masks(
    tmp_path: Path, files: dict[str, str | bytes], shapes: tuple[str, ...] = ("polygon", "mask")
) -> dict[str, ArchivedItem]:
    root = put(tmp_path / "root", {"JPEGImages/a.jpg": "a", **files})
    return read_entries(root, voc.read_voc(root, shapes))


def test_masks_of_original_voc_archives_are_objects(tmp_path: Path) -> None:
    classes, objects = two_objects(7, 15)
    flagged = VOC_OBJECT.replace("van", "car").replace("<bndbox>", "<difficult>1</difficult><bndbox>")
    files = {
        "SegmentationClass/a.png": a_mask(classes),
        "SegmentationObject/a.png": a_mask(objects),
        "Annotations/a.xml": an_xml(flagged + VOC_OBJECT),
        "Annotations/boxes.xml": an_xml(VOC_OBJECT),
        "Annotations/empty.xml": an_xml(""),
        "JPEGImages/boxes.jpg": "b",
        "JPEGImages/empty.jpg": "c",
        "ImageSets/Segmentation/val.txt": "a",
    }
    found = read_masks(tmp_path, files)
    assert (found["JPEGImages/boxes.jpg"].annotations, found["JPEGImages/empty.jpg"].annotations) == (None, [])
    item = found["JPEGImages/a.jpg"]
    assert (item.split, item.width_px, item.height_px) == ("VALIDATION", 64, 48)
    assert [(one.concept, dict(one.attributes)) for one in item.annotations or ()] == [
        ("car", {"difficult": "true"}),
        ("person", {}),
    ]
    assert [pixels_of(one.mask).sum() for one in item.annotations or ()] == [36, 200]


def test_masks_have_the_colours_of_the_label_map(tmp_path: Path) -> None:
    classes, _ = two_objects(1, 2)
    files = {
        "SegmentationClass/a.png": a_mask(classes, palette={1: (10, 20, 30), 2: (250, 0, 250)}),
        "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\nvan:10,20,30::\nroad sign:250,0,250::\n",
    }
    (item,) = read_masks(tmp_path, files).values()
    assert {one.concept: int(pixels_of(one.mask).sum()) for one in item.annotations or ()} == {
        "van": 36,
        "road sign": 200,
    }


def test_a_dataset_of_boxes_reads_no_masks(tmp_path: Path) -> None:
    files = {"SegmentationClass/a.png": b"no image", "Annotations/a.xml": an_xml(VOC_OBJECT)}
    (item,) = read_masks(tmp_path, files, ("box",)).values()
    assert [one.WhichOneof("shape") for one in item.annotations or ()] == ["box"]


LARGE = np.zeros((48, 128), np.uint8)
NOISE = np.random.default_rng(0).integers(1, 250, (48, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"SegmentationClass/a.png": b"no image"}, "SegmentationClass/a.png is not a PNG image"),
        ({"SegmentationClass/a.png": a_mask(two_objects(7, 99)[0])}, "which labelmap.txt does not name"),
        ({"SegmentationObject/a.png": a_mask(LARGE)}, "another size than SegmentationClass/a.png"),
        ({"SegmentationObject/a.png": b""}, "SegmentationObject/a.png is not a PNG image"),
        ({"SegmentationObject/a.png": a_mask(np.minimum(two_objects()[1], 1))}, "an object of 2 classes"),
        ({"SegmentationObject/a.png": a_mask(NOISE, "RGB")}, "objects, the maximum is 2000"),
        ({"Annotations/a.xml": an_xml("").replace("64.0", "65")}, "64 x 48 pixels, but its XML file states 65 x 48"),
    ],
)
def test_an_image_with_invalid_masks_is_rejected(tmp_path: Path, files: dict[str, str | bytes], why: str) -> None:
    whole = {"SegmentationClass/a.png": a_mask(two_objects(7, 15)[0]), **files}
    (item,) = read_masks(tmp_path, whole).values()
    assert item.annotations is None
    assert item.flaw.startswith("is rejected, because Segmentation")
    assert why in item.flaw


def test_a_mask_of_more_pixels_than_an_image_may_have_is_not_decoded(tmp_path: Path) -> None:
    header = a_mask(LARGE)
    bomb = header[:16] + (60_000).to_bytes(4, "big") * 2 + header[24:]
    (item,) = read_masks(
        tmp_path, {"SegmentationClass/a.png": bomb[:29] + crc32(bomb[12:29]).to_bytes(4, "big") + bomb[33:]}
    ).values()
    assert item.annotations is None
    assert "is rejected, because SegmentationClass/a.png" in item.flaw


@pytest.mark.parametrize("line", ["van:300,0,0::", "van:1,2::", "van:128,0,0::\ncar:128,0,0::", "van:0,0,0::"])
def test_an_invalid_label_map_is_rejected(tmp_path: Path, line: str) -> None:
    files = {"SegmentationClass/a.png": a_mask(two_objects()[0]), "labelmap.txt": line}
    with pytest.raises(UnreadableArchiveError, match=r"labelmap.txt: line \d has"):
        read_masks(tmp_path, files)
