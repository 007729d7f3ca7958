"""Objects of COCO archives. Bad input is rejected with its place, and an image is never imported in part."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_builders import put, read_entries
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_masks
from vesta_common.media.crowds import is_crowd
from vesta_contracts.common.v1 import (
    Annotation,
    Media,
    PixelBox,
)
from vesta_contracts.connection.v1 import IngestedMedia
from vesta_datasets.archives import coco
from vesta_datasets.archives.layout import ArchivedItem, UnreadableArchiveError
from vesta_datasets.archives.run_lengths import RunsError, uncompressed
from vesta_datasets.operations.converted import converted_to
from vesta_datasets.operations.incoming import Ingested
from vesta_datasets.task_types.detection import Detection

BOXES = ("box",)


def read_coco(tmp_path: Path, shapes: tuple[str, ...] = BOXES, **lists: Any) -> dict[str, ArchivedItem]:
    told = {
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "van"}],
        **lists,
    }
    root = put(tmp_path / "root", {"annotations/instances_train.json": json.dumps(told), "images/a.png": b"a"})
    return read_entries(root, coco.read_coco(root, shapes, tmp_path))


def test_a_coco_file_is_read_whatever_the_order_of_its_lists(tmp_path: Path) -> None:
    (item,) = read_coco(tmp_path).values()
    assert (item.file_name, item.split, item.width_px, item.height_px) == ("images/a.png", "TRAIN", 64, 48)
    assert list(item.annotations or ()) == [
        Annotation(concept="van", box=PixelBox(x_min_px=1, y_min_px=2, x_max_px=4, y_max_px=6))
    ]


@pytest.mark.parametrize(
    ("lists", "why"),
    [
        (
            {"annotations": [{"id": 1, "image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]}]},
            "image_id 2, which is not",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [1, 2, 3, 4]}]},
            "category_id 9, which is not",
        ),
        ({"annotations": ["x"]}, r"annotations\[0\] is not an object"),
        ({"images": [{"id": 1, "file_name": "a.png", "width": 64.5}]}, "width 64.5; write a whole number"),
        ({"images": [{"id": 1}]}, "no file_name"),
        ({"images": [{"file_name": "a.png"}]}, "no id"),
        ({"images": [{"id": 1, "file_name": "a.png"}] * 2}, "which another image of the file has"),
        ({"images": [{"id": number, "file_name": "a.png"} for number in (1, 2)]}, "lists an image file twice"),
        ({"images": [{"id": 1, "file_name": "../../../etc/passwd"}]}, "outside of the archive"),
        ({"categories": [{"id": 1}]}, r"categories\[0\] has no name"),
    ],
)
def test_a_coco_file_that_contradicts_itself_is_rejected(tmp_path: Path, lists: dict[str, Any], why: str) -> None:
    with pytest.raises(UnreadableArchiveError, match=why):
        read_coco(tmp_path, **lists)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"bbox": [1, 2, 3]}, "bbox that is not a list of 4 finite numbers"),
        ({"bbox": [1, 2, "x", 4]}, "bbox that is not a list of 4 finite numbers"),
        ({"segmentation": [[1, 2, 3, 4]]}, "a polygon that is not a list of at least three points"),
        ({"segmentation": {"size": [48, 64], "counts": [1, 2]}}, "run lengths that cover 3 pixels of 64 x 48"),
        ({"segmentation": {"size": [48, 64], "counts": "\u00e9"}}, "neither numbers nor valid compressed text"),
        ({"segmentation": "x"}, "neither a list of polygons nor an object"),
        ({"keypoints": [1, 2, 2]}, "keypoints that is not a list of 0 finite numbers"),
        ({}, "has no segmentation, bbox or keypoints"),
    ],
)
def test_an_image_with_an_invalid_object_is_rejected_as_a_whole(tmp_path: Path, said: dict[str, Any], why: str) -> None:
    good = {"id": 6, "image_id": 1, "category_id": 1, "segmentation": [[1, 2, 9, 2, 9, 8]]}
    objects = [good, {"id": 7, "image_id": 1, "category_id": 1, **said}]
    (item,) = read_coco(tmp_path, ("polygon", "mask"), annotations=objects).values()
    assert item.annotations is None
    assert item.flaw.startswith("is rejected, because annotation 7 has")
    assert why in item.flaw


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [(BOXES, "box"), (("polygon", "mask"), "polygon"), (("mask",), "mask"), (("keypoints",), "keypoints")],
)
def test_of_the_shapes_of_an_object_the_one_of_the_task_is_read(
    tmp_path: Path, shapes: tuple[str, ...], kind: str
) -> None:
    said = {
        "bbox": [1, 2, 8, 6],
        "segmentation": [[1, 2, 9, 2, 9, 8]],
        "keypoints": [3, 4, 2, 0, 0, 0],
        "num_keypoints": 1,
        "iscrowd": 1,
    }
    categories = [{"id": 1, "name": "van", "keypoints": ["door", "roof"]}]
    objects = [{"id": 1, "image_id": 1, "category_id": 1, **said}]
    (item,) = read_coco(tmp_path, shapes, annotations=objects, categories=categories).values()
    (found,) = item.annotations or ()
    assert (found.WhichOneof("shape"), dict(found.attributes)) == (kind, {"crowd": "true"})
    assert [point.label for point in found.keypoints.points] == (["door"] if kind == "keypoints" else [])


@pytest.mark.parametrize(
    ("rotation", "shape", "angle_deg", "attributes"),
    [
        (350.5, "rotated_box", -9.5, {}),
        (180, "rotated_box", 180, {}),
        (0.0, "box", 0, {}),
        ("left", "box", 0, {"rotation": "left"}),
    ],
)
def test_the_rotation_of_a_box_is_that_of_cvat(
    tmp_path: Path, rotation: object, shape: str, angle_deg: float, attributes: dict[str, str]
) -> None:
    said = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 8, 4], "attributes": {"rotation": rotation}}
    (item,) = read_coco(tmp_path, ("rotated_box",), annotations=[said]).values()
    (found,) = item.annotations or ()
    assert (found.WhichOneof("shape"), found.rotated_box.angle_deg) == (shape, angle_deg)
    assert dict(found.attributes) == attributes
    if shape == "rotated_box":
        turned = found.rotated_box
        assert (turned.x_center_px, turned.y_center_px, turned.width_px, turned.height_px) == (14, 22, 8, 4)
        (boxed,) = Detection().imported([found])
        assert boxed.box.x_min_px <= 10.1
        assert boxed.box.y_min_px <= 20.1


def test_an_object_in_two_coco_files_is_one(tmp_path: Path) -> None:
    lists = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "van", "keypoints": ["door"]}],
    }
    box = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    other = {**box, "id": 6}
    files = {
        "annotations/instances_val2017.json": json.dumps({**lists, "annotations": [box, other]}),
        "annotations/person_keypoints_val2017.json": json.dumps(
            {**lists, "annotations": [{**box, "keypoints": [1, 1, 2]}]}
        ),
        "val2017/a.png": "a",
    }
    root = put(tmp_path / "root", dict(files))
    (item,) = read_entries(root, coco.read_coco(root, ("keypoints", "box"), tmp_path)).values()
    assert item.file_name == "val2017/a.png"
    assert [one.WhichOneof("shape") for one in item.annotations or ()] == ["box", "box"]


def crowds_of(item: ArchivedItem) -> list[bool]:
    return [is_crowd(one) for one in item.annotations or ()]


@pytest.mark.parametrize(("others", "crowds"), [([], [False, False]), ([0], [True, True, False])])
def test_crowds_are_run_lengths_beside_other_objects(tmp_path: Path, others: list[int], crowds: list[bool]) -> None:
    mask = {"size": [48, 64], "counts": [0, 64 * 48]}
    told = [
        {"id": place, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": mask, "iscrowd": flag}
        for place, flag in enumerate([1, 1, *others])
    ]
    (item,) = read_coco(tmp_path, ("mask",), annotations=told).values()
    assert crowds_of(item) == crowds


def test_crowds_without_a_segmentation_and_crowds_by_attribute_are_crowds(tmp_path: Path) -> None:
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1}
    mask = {**box, "segmentation": {"size": [48, 64], "counts": [0, 64 * 48]}}
    told = [{**box, "id": 1}, {**mask, "id": 2}, {**mask, "id": 3, "attributes": {"crowd": True}}]
    (item,) = read_coco(tmp_path, ("mask", "box"), annotations=told).values()
    assert crowds_of(item) == [True, False, True]


def test_objects_of_one_coco_file_with_the_same_id_are_different_objects(tmp_path: Path) -> None:
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, 2, 3, 4]} for x in (1, 30)]
    (item,) = read_coco(tmp_path, annotations=boxes).values()
    assert [one.box.x_min_px for one in item.annotations or ()] == [1, 30]


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=5, max_size=5))
def test_compressed_run_lengths_are_those_of_pycocotools(rows: list[list[bool]]) -> None:
    pixels = np.asfortranarray(np.array(rows, np.uint8))
    runs = uncompressed(coco_masks.encode(pixels)["counts"].decode())
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(7, 5).T
    assert (inside == pixels).all()


@given(st.text(max_size=30))
def test_any_other_text_is_no_run_lengths_or_numbers(text: str) -> None:
    with suppress(RunsError):
        assert all(isinstance(run, int) for run in uncompressed(text))


def test_an_image_of_another_size_than_its_archive_states_is_rejected(tmp_path: Path) -> None:
    (item,) = read_coco(tmp_path).values()
    turned = IngestedMedia(media=Media(width_px=48, height_px=64))
    result = converted_to(Detection(), Ingested(item, turned)).result
    assert (result.reason, "48 x 64" in result.message, "64 x 48" in result.message) == ("SIZE_MISMATCH", True, True)
