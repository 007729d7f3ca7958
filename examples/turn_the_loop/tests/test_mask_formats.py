"""Folders with masks are read as masks of objects or as maps, as people arrange them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from masks import pixels_of
from photographs import Photograph, Photographs
from PIL import Image
from task_types import read_data, task_named
from vesta_contracts.common.v1 import TaskType

WIDTH_PX, HEIGHT_PX = 8, 4
VOC_CAR, VOC_DOG = (128, 128, 128), (64, 0, 128)

Drawn = list[tuple[str, list[str]]]


def an_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH_PX, HEIGHT_PX)).save(path)


def a_coco_file(folder: Path, *segmentations: object) -> None:
    """Writes an image with objects, whose boxes are the whole image; the last one is a car, the others are vans."""
    an_image(folder / "a.jpg")
    annotations = [
        {
            "id": place,
            "image_id": 1,
            "category_id": 2 if place == len(segmentations) else 1,
            "bbox": [0, 0, WIDTH_PX, HEIGHT_PX],
            "segmentation": one,
        }
        for place, one in enumerate(segmentations, start=1)
    ]
    document = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "van"}, {"id": 2, "name": "car"}],
        "annotations": annotations,
    }
    (folder / "a.json").write_text(json.dumps(document))


def a_picture(path: Path, colours: Sequence[Sequence[tuple[int, int, int]]]) -> None:
    """Writes a PNG file with the colours of rows of pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(colours, np.uint8)).save(path)


def drawn(photograph: Photograph) -> Drawn:
    """Returns the concept and the rows of pixels of each mask, as text."""
    return [
        (one.concept, ["".join(".x"[int(pixel)] for pixel in row) for row in pixels_of(one)])
        for one in photograph.annotations
    ]


def read(folder: Path, task: str) -> tuple[str, Photographs]:
    return read_data(folder, task_named(task))


LEFT, RIGHT = ["xxxx...."] * HEIGHT_PX, ["....xxxx"] * HEIGHT_PX
POLYGON = [[0, 0, 4, 0, 4, 4, 0, 4]]
RUNS = {"size": [HEIGHT_PX, WIDTH_PX], "counts": [16, 16]}  # column by column
TEXT = {"size": [HEIGHT_PX, WIDTH_PX], "counts": "`0`0"}


@pytest.mark.parametrize("right", [RUNS, TEXT])
def test_coco_polygons_and_run_lengths_are_masks(tmp_path: Path, right: object) -> None:
    a_coco_file(tmp_path, POLYGON, right)
    name, found = read(tmp_path, "instance-segmentation")
    assert (name, found.task_type) == ("COCO", TaskType.TASK_TYPE_INSTANCE_SEGMENTATION)
    assert drawn(found.pool[0]) == [("van", LEFT), ("car", RIGHT)]


@pytest.mark.parametrize(("crowds", "count"), [((1, 1), 2), ((1, 0), 1)])
def test_crowds_are_masks_beside_those_of_objects(tmp_path: Path, crowds: tuple[int, ...], count: int) -> None:
    runs = {"size": [HEIGHT_PX, WIDTH_PX], "counts": [0, 4, 28]}
    a_coco_file(tmp_path, runs, runs)
    document = json.loads((tmp_path / "a.json").read_text())
    for annotation, crowd in zip(document["annotations"], crowds, strict=True):
        annotation["iscrowd"] = crowd
    (tmp_path / "a.json").write_text(json.dumps(document))
    _, photographs = read_data(tmp_path, task_named("instance-segmentation"))
    assert [len(one.annotations) for one in (*photographs.pool, *photographs.test)] == [count]


def test_objects_are_joined_by_concept_and_small_ones_lie_on_top(tmp_path: Path) -> None:
    a_coco_file(tmp_path, POLYGON, [[6, 0, 8, 0, 8, 4, 6, 4]], [[0, 0, 2, 0, 2, 4, 0, 4]])
    name, found = read(tmp_path, "semantic-segmentation")
    assert (name, found.task_type) == ("COCO", TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION)
    assert drawn(found.pool[0]) == [("car", ["xx......"] * HEIGHT_PX), ("van", ["..xx..xx"] * HEIGHT_PX)]


def test_without_a_task_boxes_are_read_first(tmp_path: Path) -> None:
    a_coco_file(tmp_path, POLYGON)
    assert read_data(tmp_path)[1].task_type == TaskType.TASK_TYPE_DETECTION


def test_files_with_panoptic_maps_are_ignored(tmp_path: Path) -> None:
    a_coco_file(tmp_path, POLYGON)
    panoptic = {"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 7, "category_id": 1}]}
    document = {**json.loads((tmp_path / "a.json").read_text()), "annotations": [panoptic]}
    (tmp_path / "_panoptic.json").write_text(json.dumps(document))
    assert drawn(read(tmp_path, "instance-segmentation")[1].pool[0]) == [("car", LEFT)]


def test_yolo_rows_with_points_are_masks(tmp_path: Path) -> None:
    an_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0 0 0.5 0 0.5 1 0 1\n1 0.5 0.5 1 1\n")
    (tmp_path / "data.yaml").write_text("names: [van, car]")
    name, found = read(tmp_path, "instance-segmentation")
    assert (name, drawn(found.pool[0])) == ("YOLO", [("van", LEFT)])


@pytest.mark.parametrize("with_objects", [True, False])
def test_voc_colours_are_classes_and_objects(tmp_path: Path, with_objects: bool) -> None:
    for image in ("a", "b"):
        an_image(tmp_path / "JPEGImages" / f"{image}.jpg")
        row = [VOC_CAR] * 4 + [(224, 224, 192)] + [VOC_CAR] * 2 + [(0, 0, 0)]
        a_picture(tmp_path / "SegmentationClass" / f"{image}.png", [row] * HEIGHT_PX)
        if with_objects:
            row = [(128, 0, 0)] * 4 + [(0, 0, 0)] + [(0, 128, 0)] * 2 + [(0, 0, 0)]
            a_picture(tmp_path / "SegmentationObject" / f"{image}.png", [row] * HEIGHT_PX)
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "test.txt").write_text("b\n")
    name, maps = read(tmp_path, "semantic-segmentation")
    assert name == "Pascal VOC with masks"
    assert [one.path.stem for one in maps.test] == ["b"]
    assert drawn(maps.pool[0]) == [("car", ["xxxx.xx."] * HEIGHT_PX)]
    found = read_data(tmp_path)[1]
    if with_objects:
        assert found.task_type == TaskType.TASK_TYPE_INSTANCE_SEGMENTATION
        assert drawn(found.pool[0]) == [("car", [".....xx."] * HEIGHT_PX), ("car", LEFT)]
    else:
        assert found.task_type == TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION
        with pytest.raises(ValueError, match="has no masks"):
            read(tmp_path, "instance-segmentation")


def test_a_label_map_names_colours_and_numbers_have_those_of_voc(tmp_path: Path) -> None:
    an_image(tmp_path / "a.jpg")
    an_image(tmp_path / "b.jpg")
    a_picture(tmp_path / "SegmentationClass" / "a.png", [[(1, 2, 3)] * WIDTH_PX] * HEIGHT_PX)
    Image.new("L", (WIDTH_PX, HEIGHT_PX), 12).save(tmp_path / "SegmentationClass" / "b.png")
    with pytest.raises(ValueError, match=r"a\.png has the colour \(1, 2, 3\), which has no class"):
        read(tmp_path, "semantic-segmentation")
    lines = [
        "# label:color_rgb:parts:actions",
        "background:0,0,0::",
        "van:1,2,3::",
        f"hound:{','.join(map(str, VOC_DOG))}::",
    ]
    (tmp_path / "labelmap.txt").write_text("\n".join(lines))
    maps = read(tmp_path, "semantic-segmentation")[1]
    assert [drawn(one) for one in maps.pool] == [
        [("van", ["x" * WIDTH_PX] * HEIGHT_PX)],
        [("hound", ["x" * WIDTH_PX] * HEIGHT_PX)],
    ]


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ({"size": [4, 4], "counts": [16]}, "annotation 1 has a mask of 4 x 4 pixels, its image 8 x 4"),
        ({"size": [4, 8]}, "annotation 1 has no valid segmentation"),
        ([["a"]], "annotation 1 has no valid segmentation"),
    ],
)
def test_an_invalid_mask_is_named(tmp_path: Path, segmentation: object, expected: str) -> None:
    a_coco_file(tmp_path, segmentation)
    with pytest.raises(ValueError, match=expected):
        read(tmp_path, "instance-segmentation")
