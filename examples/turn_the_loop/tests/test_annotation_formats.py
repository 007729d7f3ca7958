"""Folders with boxes are recognised by their files, and read as people arrange them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from boxes import corners
from photographs import Photograph, Photographs
from PIL import Image
from task_types import read_data
from vesta_contracts.common.v1 import TaskType

SIZE_PX = (80, 40)


def an_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE_PX).save(path)
    return path


def a_coco_file(path: Path, *names: str, boxes: Sequence[tuple[int, list[float], int]] = ()) -> None:
    """Writes the images with these names, and boxes as number of the image from 0, `bbox` and `iscrowd`."""
    annotations = [
        {"id": place, "image_id": image, "category_id": 7, "bbox": box, "iscrowd": crowd}
        for place, (image, box, crowd) in enumerate(boxes)
    ]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "van"}]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def a_voc_file(path: Path, *boxes: tuple[str, int, int, int, int]) -> None:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in boxes
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{objects}</annotation>")


def drawn(photographs: Sequence[Photograph]) -> dict[str, list[tuple[str, list[float]]]]:
    """Returns the concepts and corners by file name."""
    return {
        one.path.name: [(a.concept, corners([a])[0].tolist()) for a in one.annotations]
        for one in sorted(photographs, key=lambda one: one.path.name)
    }


def read(folder: Path, expected: str) -> Photographs:
    name, found = read_data(folder)
    assert name == expected
    assert found.task_type == TaskType.TASK_TYPE_DETECTION
    return found


def test_coco_boxes_are_read_within_the_image_without_crowds_and_empty_images_stay(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        an_image(tmp_path / "images" / name)
    boxes = [
        (0, [10.5, 5, 20, 10], 0),
        (0, [70, 30, 50, 50], 0),  # reaches over the edge
        (0, [90, 50, 5, 5], 0),  # outside
        (0, [10, 10, 0, 4], 0),  # empty
        (1, [0, 0, 80, 40], 1),  # a crowd
    ]
    a_coco_file(tmp_path / "annotations" / "instances_default.json", "a.jpg", "b.jpg", "gone.jpg", boxes=boxes)
    found = read(tmp_path, "COCO")
    assert drawn(found.pool) == {
        "a.jpg": [("van", [10.5, 5, 30.5, 15]), ("van", [70, 30, 80, 40])],
        "b.jpg": [],
    }
    assert (found.test, found.labels) == ([], ["van"])


def test_the_test_split_of_coco_is_that_of_its_annotation_file(tmp_path: Path) -> None:
    for side in ("train", "valid", "test"):
        an_image(tmp_path / side / "same.jpg")
        a_coco_file(tmp_path / side / "_annotations.coco.json", "same.jpg", boxes=[(0, [0, 0, 9, 9], 0)])
    found = read(tmp_path, "COCO")
    assert sorted(one.path.parent.name for one in found.pool) == ["train", "valid"]
    assert [one.path.parent.name for one in found.test] == ["test"]


def test_voc_counts_pixels_from_one_and_lists_its_test_split(tmp_path: Path) -> None:
    for name in ("a", "b", "without"):
        an_image(tmp_path / "JPEGImages" / f"{name}.jpg")
    a_voc_file(tmp_path / "Annotations" / "a.xml", ("van", 1, 1, 80, 40), ("car", 30, 20, 20, 30))
    a_voc_file(tmp_path / "Annotations" / "b.xml", ("car", 11, 11, 20, 20))
    a_voc_file(tmp_path / "Annotations" / "gone.xml", ("car", 11, 11, 20, 20))
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("b\n")
    found = read(tmp_path, "Pascal VOC")
    assert drawn(found.pool) == {"a.jpg": [("van", [0, 0, 80, 40])]}
    assert drawn(found.test) == {"b.jpg": [("car", [10, 10, 20, 20])]}


def test_yolo_boxes_are_shares_and_an_image_without_a_file_shows_nothing(tmp_path: Path) -> None:
    for name in ("train/a.jpg", "train/b.jpg", "test/c.jpg"):
        an_image(tmp_path / "images" / name)
    for name, line in (("train/a", "1 0.5 0.5 0.25 0.5\n\n"), ("test/c", "0 0.1 0.1 0.3 0.1 0.2 0.9")):
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text(line)
    (tmp_path / "data.yaml").write_text("names: [van, car]\ntrain: images/train\n")
    found = read(tmp_path, "YOLO")
    assert drawn(found.pool) == {"a.jpg": [("car", [30, 10, 50, 30])], "b.jpg": []}
    ((concept, polygon),) = drawn(found.test)["c.jpg"]
    assert (concept, polygon) == ("van", pytest.approx([8, 4, 24, 36]))


def test_images_that_are_shown_turned_have_the_size_of_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", SIZE_PX).save(tmp_path / "a" / "a.jpg", exif=turned)
    (tmp_path / "a" / "a.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "classes.txt").write_text("van")
    assert drawn(read(tmp_path, "YOLO").pool) == {"a.jpg": [("van", [0, 0, 40, 80])]}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"labels/a.txt": "9 0.5 0.5 1 1", "data.yaml": "names: [van]"},
            r"a\.txt:1 has the class 9, which has no name",
        ),
        ({"labels/a.txt": "0 0.5 0.5", "data.yaml": "names: [van]"}, r"a\.txt:1 is not a class number with"),
        ({"a.xml": "<annotation><object>"}, r"a\.xml is not a valid Pascal VOC file"),
        ({"a.xml": "<annotation><object><name>van</name></object></annotation>"}, "has no bndbox/xmin"),
        (
            {"a.json": '{"images": [], "categories": [], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}'},
            r"a\.json is not a valid COCO file",
        ),
        (
            {"a.json": "{not JSON"},
            "expected: at least two sub-folders .* Boxes and masks are read from COCO, Pascal VOC and YOLO",
        ),
    ],
)
def test_a_broken_annotation_file_is_named(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    an_image(tmp_path / "images" / "a.jpg")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=expected):
        read_data(tmp_path)


def test_folders_of_classes_are_read_as_such(tmp_path: Path) -> None:
    for name in ("cat/a.jpg", "dog/b.jpg"):
        an_image(tmp_path / name)
    name, found = read_data(tmp_path)
    assert (name, found.task_type) == ("class folders", TaskType.TASK_TYPE_CLASSIFICATION)
