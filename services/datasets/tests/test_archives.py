"""Exports can be imported without loss, or are rejected. Unreadable annotations are never imported as answers."""

import json
import os
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets_builders import a_png, a_zip, says
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import coco as pycocotools_coco
from vesta_common.errors import FailedPrecondition
from vesta_common.ids import new_id
from vesta_contracts.common.v1 import (
    Annotation,
    ImageLabel,
    Keypoint,
    Keypoints,
    Mask,
    PixelBox,
    PixelPoint,
    Polygon,
    Ring,
    RotatedBox,
    Track,
    Visibility,
)
from vesta_contracts.datasets.v1 import ArchiveFormat
from vesta_datasets.archives.archives import pack, read_unpacked, unpack
from vesta_datasets.archives.layout import ArchivedItem, UnreadableArchiveError
from vesta_datasets.archives.masks import mask_of, pixels_of
from vesta_datasets.archives.unzip import unpack_zip
from vesta_datasets.items.bounding_boxes import bounding_box
from vesta_datasets.operations.converted import in_pixels

HEIGHT_PX, WIDTH_PX = 48, 64
FOLDERS, COCO = ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER, ArchiveFormat.ARCHIVE_FORMAT_COCO
VOC, YOLO = ArchiveFormat.ARCHIVE_FORMAT_PASCAL_VOC, ArchiveFormat.ARCHIVE_FORMAT_YOLO


def ring(*corners: tuple[float, float]) -> Ring:
    return Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in corners])


def spots() -> Mask:
    pixels = np.zeros((HEIGHT_PX, WIDTH_PX), np.bool_)
    pixels[3:10, 4:20] = True
    pixels[5:7, 8:10] = False
    return mask_of(pixels)


HIDDEN = Annotation(concept="van", image_label=ImageLabel(), attributes={"occluded": "true"})
TRIANGLE = ring((1, 1), (10, 1), (10, 12.5))
BOX = Annotation(concept="van", box=PixelBox(x_min_px=1, y_min_px=2, x_max_px=30.25, y_max_px=20))
POLYGON = Annotation(concept="car", polygon=Polygon(outline=TRIANGLE))
MASK = Annotation(concept="car", mask=spots())
HOLED = Annotation(concept="car", polygon=Polygon(outline=TRIANGLE, holes=[ring((3, 2), (4, 2), (4, 3))]))
TURNED = Annotation(
    concept="van", rotated_box=RotatedBox(x_center_px=9, y_center_px=9, width_px=4, height_px=2, angle_deg=30)
)
POINTS = Annotation(
    concept="van",
    keypoints=Keypoints(
        points=[Keypoint(label="door", point=PixelPoint(x_px=1, y_px=1), visibility=Visibility.VISIBILITY_VISIBLE)]
    ),
)
TRACK = Annotation(concept="van", track=Track(track_id="1"))
CROWD = Annotation(concept="car", mask=spots(), attributes={"crowd": "true", "colour": "red"})
PARTLY = Annotation(concept="van", box=BOX.box, attributes={"truncated": "true", "pose": "Left"})
INNER = Annotation(concept="van", box=PixelBox(x_min_px=8, y_min_px=6, x_max_px=40, y_max_px=30))  # exact as shares
NO_PIXELS = Annotation(concept="van", mask=Mask(height_px=HEIGHT_PX, width_px=WIDTH_PX, runs_px=[HEIGHT_PX * WIDTH_PX]))


def written(folder: Path, told: list[list[Annotation]]) -> list[ArchivedItem]:
    """Returns labelled images, in alternating splits."""
    items = []
    for number, annotations in enumerate(told):
        path = folder / f"01{number:03}.png"
        Image.effect_noise((WIDTH_PX, HEIGHT_PX), 50 + number).save(path)
        split = ("TRAIN", "VALIDATION", "TEST")[number % 3]
        items.append(ArchivedItem(path.name, path, split, annotations, WIDTH_PX, HEIGHT_PX))
    return items


def there_and_back(
    tmp_path: Path, layout: ArchiveFormat.ValueType, told: list[list[Annotation]]
) -> dict[str, tuple[str, list[Annotation] | None]]:
    """Exports and imports images. Returns split and annotations by file."""
    source = tmp_path / "source"
    source.mkdir()
    concepts = {one.concept: ["door", "roof"] for annotations in told for one in annotations}
    archive = pack(written(source, told), concepts, layout, tmp_path / "out")
    back: dict[str, tuple[str, list[Annotation] | None]] = {}
    for item in unpack(archive, tmp_path / "in", layout):
        annotations = item.annotations
        if item.is_normalized:
            annotations = [in_pixels(one, WIDTH_PX, HEIGHT_PX) for one in annotations or ()]
        found = item.split, None if annotations is None else list(annotations)
        assert back.setdefault(item.path.name, found) == found, "copies of an image say the same"
    return back


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        (FOLDERS, [says("van"), says("car"), says("car", "van")]),
        (FOLDERS, [says("b"), says("t"), says("b", "t")]),
        (FOLDERS, [says("train"), says("test")]),
        (FOLDERS, [says("test")]),
        (FOLDERS, [says("a long name, with 100 %"), says("vehicle/van")]),
        (COCO, [says("van"), [BOX]]),
        (COCO, [says("van"), [], [MASK], [POLYGON]]),
        (COCO, [[BOX, MASK, POLYGON, *says("car", "van")], [MASK, POLYGON]]),
        (COCO, [says("b"), says("t")]),
        (COCO, [[], [BOX, BOX]]),
        (COCO, [[HIDDEN, CROWD], [POINTS, BOX]]),
        (VOC, [[BOX, PARTLY], [], [BOX]]),
        (YOLO, [[], [INNER], [POLYGON, POLYGON]]),
    ],
)
def test_a_layout_preserves_what_it_can_contain(
    tmp_path: Path, layout: ArchiveFormat.ValueType, told: list[list[Annotation]]
) -> None:
    back = there_and_back(tmp_path, layout, told)
    for number, annotations in enumerate(told):
        split, found = back[f"01{number:03}.png"]
        assert split == ("TRAIN", "VALIDATION", "TEST")[number % 3]
        assert found is not None
        assert sorted(map(str, found)) == sorted(map(str, annotations))
    assert len(back) == len(told)


@pytest.mark.parametrize(
    ("layout", "annotations", "what"),
    [
        (FOLDERS, [BOX], "a box"),
        (FOLDERS, [TURNED], "a rotated box"),
        (FOLDERS, [HIDDEN], "the attribute 'occluded'"),
        (FOLDERS, [], "none of the concepts"),
        (FOLDERS, says(".."), "'..'"),
        (FOLDERS, says("a/../../b"), "'a/../../b'"),
        (FOLDERS, says("no_label"), "'no_label'"),
        (FOLDERS, says("x" * 300), "not a valid folder name"),
        (COCO, [HOLED], "a polygon with holes"),
        (COCO, [TURNED], "a rotated box"),
        (COCO, [TRACK], "a track"),
        (COCO, [NO_PIXELS], "a mask without pixels"),
        (VOC, [POLYGON], "a polygon"),
        (VOC, says("car"), "image label"),
        (VOC, [Annotation(concept="van", box=BOX.box, attributes={"colour": "red"})], "colour"),
        (VOC, [Annotation(concept=" van", box=BOX.box)], "the concept ' van'"),
        (YOLO, [MASK], "a mask"),
        (YOLO, [HOLED], "a polygon with holes"),
        (YOLO, [PARTLY], "the attribute"),
        (YOLO, [INNER, POLYGON], "a box and a polygon"),
        (YOLO, [Annotation(concept="van", box=PixelBox(x_min_px=-0.5, x_max_px=3, y_max_px=3))], "exceeds the image"),
    ],
)
def test_what_a_layout_cannot_contain_is_rejected_by_name(
    tmp_path: Path, layout: ArchiveFormat.ValueType, annotations: list[Annotation], what: str
) -> None:
    plain = says("car") if layout in (FOLDERS, COCO) else []
    with pytest.raises(FailedPrecondition) as refused:
        there_and_back(tmp_path, layout, [plain, annotations])
    assert refused.value.reason == "FORMAT_CANNOT_REPRESENT"
    assert what in refused.value.message
    assert "01001" in refused.value.message


@pytest.mark.parametrize("layout", [FOLDERS, COCO, VOC, YOLO])
def test_an_empty_export_is_rejected(tmp_path: Path, layout: ArchiveFormat.ValueType) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        pack([], {"van": []}, layout, tmp_path / "out")
    assert refused.value.reason == "EXPORT_EMPTY"


@pytest.mark.parametrize("layout", [FOLDERS, COCO, VOC, YOLO])
def test_the_memory_of_an_export_does_not_depend_on_the_number_of_images(
    tmp_path: Path, layout: ArchiveFormat.ValueType
) -> None:
    annotations = says("van") if layout in (FOLDERS, COCO) else [INNER]

    def items(count: int) -> Iterator[ArchivedItem]:
        for number in range(count):
            path = tmp_path / f"{number:06}.png"
            path.write_bytes(b"a picture")
            yield ArchivedItem(path.name, path, "TRAIN", annotations, WIDTH_PX, HEIGHT_PX)
            path.unlink()

    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        archive = pack(items(count), {"van": []}, layout, tmp_path / new_id())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        with zipfile.ZipFile(archive) as opened:
            assert sum(name.endswith(".png") for name in opened.namelist()) == count
        return peak

    peak_bytes(10)  # loads what is loaded once
    few = peak_bytes(400)
    # The smaller of two, because the table of Python's interned strings, such as parts of paths, may grow in one of them.
    many = min(peak_bytes(1600), peak_bytes(1600))
    assert many < few + 100_000  # a list of the entries has 500 bytes for each image


def test_an_annotation_file_has_the_fields_of_coco(tmp_path: Path) -> None:
    items = written(tmp_path, [[BOX, MASK, POLYGON, *says("van")]])
    with zipfile.ZipFile(pack(items, {"van": [], "car": []}, COCO, tmp_path / "out")) as archive:
        told = json.loads(archive.read("annotations/instances_train.json"))
        labels = json.loads(archive.read("annotations/labels_train.json"))
        assert archive.read("images/train/01000.png") == items[0].path.read_bytes()
    assert told["categories"] == labels["categories"]
    assert [(it["id"], it["name"]) for it in told["categories"]] == [(1, "van"), (2, "car")]
    (image,) = told["images"]
    assert (image["id"], image["width"], image["height"]) == (1, WIDTH_PX, HEIGHT_PX)
    assert labels["annotations"] == [{"id": 4, "image_id": 1, "category_id": 1}]
    box, mask, polygon = told["annotations"]
    crowd = {"counts": mask["segmentation"]["counts"], "size": [HEIGHT_PX, WIDTH_PX]}
    assert box == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "segmentation": [],
        "area": 526.5,
        "bbox": [1.0, 2.0, 29.25, 18.0],
        "iscrowd": 0,
    }
    assert mask == {
        "id": 2,
        "image_id": 1,
        "category_id": 2,
        "segmentation": crowd,
        "area": 108.0,
        "bbox": [4.0, 3.0, 16.0, 7.0],
        "iscrowd": 0,
    }
    assert sum(crowd["counts"]) == HEIGHT_PX * WIDTH_PX
    assert crowd["counts"][:4] == [4 * HEIGHT_PX + 3, 7, HEIGHT_PX - 7, 7]  # down the columns
    assert polygon == {
        "id": 3,
        "image_id": 1,
        "category_id": 2,
        "segmentation": [[1.0, 1.0, 10.0, 1.0, 10.0, 12.5]],
        "area": 51.75,
        "bbox": [1.0, 1.0, 9.0, 11.5],
        "iscrowd": 0,
    }


@pytest.mark.parametrize(
    ("layout", "name", "told"),
    [
        (COCO, "coco", [[BOX], [], [BOX, MASK], [POLYGON, CROWD]]),
        (VOC, "voc", [[BOX, PARTLY], [], [BOX]]),
        (YOLO, "yolo", [[INNER], [], [INNER, INNER]]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_datumaro_reads_the_same_boxes(
    tmp_path: Path, layout: ArchiveFormat.ValueType, name: str, told: list[list[Annotation]]
) -> None:
    import datumaro

    archive = pack(written(tmp_path, told), {"van": [], "car": []}, layout, tmp_path / "out")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "in")
    found = {
        Path(item.id).stem: sorted(
            list(map(float, one.get_bbox())) for one in item.annotations if one.type.name == "bbox"
        )
        for item in datumaro.Dataset.import_from(str(tmp_path / "in"), name)
    }
    assert set(found) == {f"01{number:03}" for number in range(len(told))}
    for number, annotations in enumerate(told):
        around = [bounding_box(one) for one in annotations]
        corners = sorted(
            [box.x_min_px, box.y_min_px, box.x_max_px - box.x_min_px, box.y_max_px - box.y_min_px]
            for box in around
            if box
        )
        assert np.array(found[f"01{number:03}"]) == pytest.approx(np.array(corners), abs=0.01)


@pytest.mark.filterwarnings("ignore")
def test_pycocotools_reads_the_same_pixels(tmp_path: Path) -> None:
    archive = pack(written(tmp_path, [[MASK, CROWD, POLYGON]]), {"car": []}, COCO, tmp_path / "out")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "in")
    read_back = pycocotools_coco.COCO(str(tmp_path / "in/annotations/instances_train.json"))
    mask, crowd, polygon = read_back.loadAnns(read_back.getAnnIds())
    assert (read_back.annToMask(mask) == pixels_of(MASK.mask)).all()
    assert (mask["iscrowd"], crowd["iscrowd"], read_back.annToMask(polygon).sum()) == (0, 1, 52)


def read(tmp_path: Path, layout: ArchiveFormat.ValueType, files: dict[str, bytes]) -> dict[str, Any]:
    """Returns the annotations of the images of an archive, or why they cannot be imported."""
    tmp_path.mkdir(exist_ok=True)
    archive = tmp_path / "foreign.zip"
    archive.write_bytes(a_zip(files))
    found = unpack(archive, tmp_path / "in", layout)
    assert len(found) == sum(1 for _ in found)
    return {item.file_name: item.flaw or None if item.annotations is None else list(item.annotations) for item in found}


def a_coco_archive(task: str, *annotations: dict[str, object]) -> dict[str, bytes]:
    told = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH_PX, "height": HEIGHT_PX}],
        "categories": [{"id": 1, "name": "van"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [1, 1, 4, 4], **one}
            for number, one in enumerate(annotations, 1)
        ],
    }
    return {f"annotations/{task}_val2017.json": json.dumps(told).encode(), "images/a.png": b"a picture"}


def test_an_image_with_an_annotation_without_a_shape_is_rejected(tmp_path: Path) -> None:
    lost = a_coco_archive("instances", {"segmentation": []}, {"bbox": []})
    why = "is rejected, because annotation 2 has no segmentation, bbox or keypoints"
    assert read(tmp_path, COCO, lost) == {"images/a.png": why}


def test_an_image_that_is_only_listed_counts_as_unlabelled(tmp_path: Path) -> None:
    assert read(tmp_path, COCO, a_coco_archive("image_info")) == {"images/a.png": None}


def test_an_object_in_several_parts_becomes_one_annotation(tmp_path: Path) -> None:
    parts = [[1, 1, 9, 1, 9, 9, 1, 9], [20, 20, 30, 20, 30, 30, 20, 30]]
    (found,) = read(tmp_path, COCO, a_coco_archive("instances", {"segmentation": parts})).values()
    assert found is not None
    assert [one.WhichOneof("shape") for one in found] == ["mask"]
    assert pixels_of(found[0].mask).sum() == 8 * 8 + 10 * 10


def test_images_whose_names_differ_only_in_the_suffix_are_distinguished(tmp_path: Path) -> None:
    told = {
        "images": [
            {"id": number, "file_name": name, "width": WIDTH_PX, "height": HEIGHT_PX}
            for number, name in enumerate(("a.gif", "a.png", "b/a.png"), 1)
        ],
        "categories": [{"id": 1, "name": "van"}, {"id": 2, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [1, 1, 4, 4]},
            {"id": 2, "image_id": 2, "category_id": 2, "iscrowd": 0, "bbox": [1, 1, 4, 4]},
        ],
    }
    listed = {name: name.encode() for name in ("images/a.gif", "images/a.png", "images/b/a.png")}
    found = read(tmp_path, COCO, {"annotations/instances_train.json": json.dumps(told).encode(), **listed})
    assert {name: [one.concept for one in said or ()] for name, said in found.items()} == {
        "images/a.gif": ["van"],
        "images/a.png": ["car"],
        "images/b/a.png": [],
    }


def test_each_annotation_file_has_its_own_category_ids(tmp_path: Path) -> None:
    files = a_coco_archive("instances", {})
    told = json.loads(files["annotations/instances_val2017.json"])
    told["images"][0]["file_name"] = "b.png"
    told["categories"] = [{"id": 1, "name": "car"}, {"id": 2, "name": "van"}]
    files |= {"annotations/instances_train2017.json": json.dumps(told).encode(), "images/b.png": b"another picture"}
    found = read(tmp_path, COCO, files)
    assert {name: [one.concept for one in said or ()] for name, said in found.items()} == {
        "images/a.png": ["van"],
        "images/b.png": ["car"],
    }


@pytest.mark.parametrize(
    ("picture", "size_px"),
    [
        (b"%PDF-1.7 not an image at all", {}),
        (b"", {}),
        (b"a picture", {"width": 60_000, "height": 60_000}),
    ],
)
def test_an_invalid_shape_affects_only_its_own_image(tmp_path: Path, picture: bytes, size_px: dict[str, int]) -> None:
    parts = {"segmentation": [[1, 1, 9, 1, 9, 9, 1, 9], [20, 20, 30, 20, 30, 30]]}
    files = a_coco_archive("instances", parts, {**parts, "image_id": 2})
    told = json.loads(files["annotations/instances_val2017.json"])
    told["images"].append({"id": 2, "file_name": "b.png", **size_px})
    files |= {"annotations/instances_val2017.json": json.dumps(told).encode(), "images/b.png": picture}
    found = read(tmp_path, COCO, files)
    assert len(found["images/a.png"]) == 1
    assert "annotation 2 has several polygons, but the size of its image is unknown" in found["images/b.png"]


def test_a_mask_larger_than_the_image_limit_is_not_decoded(tmp_path: Path) -> None:
    mask = {"segmentation": {"size": [60_000, 60_000], "counts": "0"}}
    assert (
        "annotation 1 has a mask of 60000 x 60000 pixels"
        in read(tmp_path, COCO, a_coco_archive("instances", mask))["images/a.png"]
    )


def test_the_size_of_an_image_is_read_from_its_file_if_the_archive_lacks_it(tmp_path: Path) -> None:
    parts = [[1, 1, 9, 1, 9, 9, 1, 9], [20, 20, 30, 20, 30, 30, 20, 30]]
    files = a_coco_archive("instances", {"segmentation": parts})
    told = json.loads(files["annotations/instances_val2017.json"])
    del told["images"][0]["width"], told["images"][0]["height"]
    files |= {"annotations/instances_val2017.json": json.dumps(told).encode(), "images/a.png": a_png("a picture")}
    (found,) = read(tmp_path, COCO, files).values()
    assert found is not None
    assert [(one.mask.height_px, one.mask.width_px) for one in found] == [(HEIGHT_PX, WIDTH_PX)]


def test_an_archive_without_shapes_and_labels_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UnreadableArchiveError, match="instances_"):
        read(tmp_path, COCO, a_coco_archive("captions"))


def test_an_image_that_is_named_but_missing_is_reported(tmp_path: Path) -> None:
    files = a_coco_archive("instances", {})
    told = json.loads(files["annotations/instances_val2017.json"])
    told["images"].append({"id": 2, "file_name": "b.png", "width": WIDTH_PX, "height": HEIGHT_PX})
    archive = tmp_path / "foreign.zip"
    archive.write_bytes(a_zip({**files, "annotations/instances_val2017.json": json.dumps(told).encode()}))
    found = unpack(archive, tmp_path / "in", COCO)
    assert [(item.file_name, item.is_there) for item in found] == [("images/a.png", True), ("images/b.png", False)]


def test_an_empty_archive_is_rejected(tmp_path: Path) -> None:
    for layout in (FOLDERS, COCO, VOC, YOLO, ArchiveFormat.ARCHIVE_FORMAT_UNSPECIFIED):
        with pytest.raises(UnreadableArchiveError):
            read(tmp_path / str(layout), layout, {})


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_rejected_or_yields_unchanged_images_and_labels(tmp_path: Path, method: int) -> None:
    content = b"a picture" * 9
    whole = a_zip({"van/é.jpg": content}, method)
    archive = tmp_path / "damaged.zip"
    rejected_count = 0
    for place, byte in product(range(len(whole)), (0x00, 0xFF)):
        archive.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
        try:
            unpack_zip(tmp_path, (archive.name, f"{place}-{byte}"))
            found = read_unpacked(tmp_path / f"{place}-{byte}", FOLDERS)
        except UnreadableArchiveError:
            rejected_count += 1
        else:  # the damage is in a time or an attribute, which is not read
            (item,) = found
            assert [one.concept for one in item.annotations or ()] == ["van"]
            assert item.path.read_bytes() == content
    assert rejected_count > len(content)


def test_common_folder_layouts_are_read(tmp_path: Path) -> None:
    files = {
        "mine/b/one.jpg": b"1",
        "mine/b/one.png": b"2",
        "mine/t/one.jpg": b"3",
        "mine/t/copy.jpg": b"1",
        "mine/test/x.jpg": b"4",
        "mine/no_label/y.jpg": b"5",
        "mine/loose.jpg": b"6",
        "mine/t/.DS_Store": b"7",
        "__MACOSX/mine/t/._one.jpg": b"8",
    }
    assert read(tmp_path, FOLDERS, files) == {
        "b/one.jpg": says("b", "t"),
        "b/one.png": says("b"),
        "t/one.jpg": says("t"),
        "t/copy.jpg": says("b", "t"),
        "test/x.jpg": says("test"),
        "no_label/y.jpg": None,
        "loose.jpg": None,
    }


@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)))
def test_pixels_decode_to_their_runs(pixels: np.ndarray) -> None:
    mask = mask_of(pixels)
    assert sum(mask.runs_px) == pixels.size
    assert (pixels_of(mask) == pixels).all()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9))
def test_runs_decode_to_their_pixels(runs: list[int]) -> None:
    mask = Mask(height_px=1, width_px=sum(runs), runs_px=runs)
    assert mask_of(pixels_of(mask)) == mask


def test_a_parser_error_is_reported_as_an_invalid_archive(tmp_path: Path) -> None:
    deep = b'{"images": [' + b"[" * 200_000 + b"]" * 200_000 + b"]}"
    with pytest.raises(UnreadableArchiveError) as refused:
        read(tmp_path, COCO, {"annotations/instances_train.json": deep, "images/a.png": b""})
    assert refused.value.reason == "ARCHIVE_UNREADABLE"


def test_an_archive_that_takes_too_long_is_rejected(tmp_path: Path) -> None:
    archive = tmp_path / "slow.zip"
    archive.write_bytes(a_zip({f"van/{number}.png": b"a picture" for number in range(2000)}))
    with pytest.raises(UnreadableArchiveError, match="limit of memory or time"):
        unpack(archive, tmp_path / "in", FOLDERS, timeout=timedelta(milliseconds=1))


@pytest.mark.skipif(os.geteuid() != 0, reason="the suite itself runs as another user than root")
def test_archives_are_read_and_written_by_another_user(tmp_path: Path) -> None:
    """The process switches to the user nobody before it reads, as services in containers do."""
    program = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
from pathlib import Path
from tempfile import TemporaryDirectory
from datasets_builders import says
from test_archives import COCO, there_and_back
with TemporaryDirectory() as folder:
    print(len(there_and_back(Path(folder), COCO, [says("van"), says("car")])))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TMPDIR": "/tmp"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd="/", check=False, capture_output=True, text=True
    )
    assert (ended.stdout.strip().splitlines()[-1:], ended.returncode) == (["2"], 0), ended.stdout + ended.stderr
