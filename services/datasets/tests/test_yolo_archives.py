"""Archives in the layout of YOLO. Bad input is rejected with its place."""

from pathlib import Path

import pytest
from archive_builders import put, read_entries
from datasets_builders import Datasets, Ingest
from vesta_contracts.common.v1 import (
    Media,
    PixelBox,
    Visibility,
)
from vesta_contracts.connection.v1 import IngestedMedia
from vesta_datasets.archives import yolo
from vesta_datasets.archives.archives import ALL_SHAPES, OpenArchive
from vesta_datasets.archives.layout import ArchivedItem, UnreadableArchiveError
from vesta_datasets.operations.converted import converted_to
from vesta_datasets.operations.incoming import IncomingFiles, Ingested
from vesta_datasets.task_types.detection import Detection


def read_yolo(tmp_path: Path, files: dict[str, str]) -> dict[str, ArchivedItem]:
    named = {"data.yaml": "train: images/train\nval:\nnames:\n  0: van\n  3: car\n", "images/train/a.png": "a", **files}
    root = put(tmp_path / "root", dict(named))
    return read_entries(root, yolo.read_yolo(root, ALL_SHAPES))


def test_yolo_rows_are_boxes_and_polygons(tmp_path: Path) -> None:
    rows = "0 0.5 0.5 0.25 0.5\n\n3 0 0 1 0 1 1\n"
    files = {"labels/train/a.txt": rows, "images/train/b.png": "b", "labels/train/b.txt": "", "images/train/c.png": "c"}
    found = read_yolo(tmp_path, files)
    assert {name: item.annotations and len(item.annotations) for name, item in found.items()} == {
        "images/train/a.png": 2,
        "images/train/b.png": [],
        "images/train/c.png": None,
    }
    media = Media(width_px=64, height_px=48)
    item = found["images/train/a.png"]
    entry = converted_to(Detection(), Ingested(item, IngestedMedia(media=media))).entry
    assert [(one.concept, one.box) for one in entry.annotations or ()] == [
        ("van", PixelBox(x_min_px=24, y_min_px=12, x_max_px=40, y_max_px=36)),
        ("car", PixelBox(x_max_px=64, y_max_px=48)),
    ]


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ("path: ../datasets/x\ntrain: images/train\nnames: [van]", "images/train"),
        ("train: ../train/images\nnames: [van]", "train/images"),
        ("train: train.txt\nnames: [van]", "images/train"),
        ("names: [van]", "train"),
    ],
)
def test_common_yolo_layouts_are_read(tmp_path: Path, config: str, place: str) -> None:
    labels = f"{place}/a.txt".replace("images", "labels")
    files = {"data.yaml": config, f"{place}/a.png": "a", labels: "0 .5 .5 .1 .1", "train.txt": f"./{place}/a.png\n"}
    root = put(tmp_path / "root", dict(files))
    (item,) = read_entries(root, yolo.read_yolo(root, ALL_SHAPES)).values()
    assert (item.file_name, item.split, len(item.annotations or ())) == (f"{place}/a.png", "TRAIN", 1)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"labels/train/a.txt": "1 .5 .5 .1 .1"}, "row 1 has the class 1, but the archive names the classes 0 to 3"),
        ({"data.yaml": "names: {a: van}"}, "names must be a list of names"),
        ({"data.yaml": "names: [[van]]"}, "names must be a list of names"),
        ({"data.yaml": "names: [van"}, "not valid YAML"),
        (
            {"data.yaml": "train: images/train\nval: images/val\nnames: [van]"},
            "val: images/val, which is not in the archive",
        ),
    ],
)
def test_a_yolo_archive_that_contradicts_itself_is_rejected(tmp_path: Path, files: dict[str, str], why: str) -> None:
    with pytest.raises(UnreadableArchiveError, match=why):
        read_yolo(tmp_path, files)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("0 1.5 .5 .1 .1", "outside of [0, 1]"),
        ("0 nan .5 .1 .1", "outside of [0, 1]"),
        ("0 .5 .5 .1 .1 .9", "has 6 values"),
        ("0 .5 x .1 .1", "not a number"),
        ("van .5 .5 .1 .1", "does not begin with a class number"),
    ],
)
def test_an_image_with_an_invalid_yolo_row_is_rejected(tmp_path: Path, row: str, why: str) -> None:
    found = read_yolo(tmp_path, {"labels/train/a.txt": f"0 .5 .5 .1 .1\n{row}"})["images/train/a.png"]
    assert found.annotations is None
    assert why in found.flaw
    assert "labels/train/a.txt: row 2" in found.flaw


POSE = "train: images/train\nnames: [van, car]\nkpt_shape: [2, 3]\n"
ROW = "0 .5 .5 .25 .5 .25 .75 2 .5 .5 1"


@pytest.mark.parametrize(
    ("config", "row", "points"),
    [
        (POSE, ROW, {"0": (0.25, 0.75, 2), "1": (0.5, 0.5, 1)}),
        (POSE + "kpt_names: {0: [door, roof]}", ROW, {"door": (0.25, 0.75, 2), "roof": (0.5, 0.5, 1)}),
        (POSE + "kpt_names: {0: [door]}", "0 .5 .5 .25 .5 .25 .75 2 0 0 0", {"door": (0.25, 0.75, 2)}),
        (POSE + "kpt_names: [[a, b], [c, d]]", ROW.replace("0 ", "1 ", 1), {"c": (0.25, 0.75, 2), "d": (0.5, 0.5, 1)}),
        (POSE.replace("2, 3", "2, 2"), "0 .5 .5 .25 .5 .25 .75 0 0", {"0": (0.25, 0.75, 2)}),
    ],
)
def test_yolo_rows_are_keypoints(
    tmp_path: Path, config: str, row: str, points: dict[str, tuple[float, float, int]]
) -> None:
    (item,) = read_yolo(tmp_path, {"data.yaml": config, "labels/train/a.txt": row}).values()
    visibilities = {2: Visibility.VISIBILITY_VISIBLE, 1: Visibility.VISIBILITY_OCCLUDED}
    (found,) = item.annotations or ()
    assert {one.label: (one.point.x_px, one.point.y_px, one.visibility) for one in found.keypoints.points} == {
        label: (x, y, visibilities[visible]) for label, (x, y, visible) in points.items()
    }


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (ROW[:-2], "has 10 values; a box has 5, and 11 with the keypoints of kpt_shape"),
        (ROW.replace("2 .5", "3 .5"), "a keypoint with the visibility 3; use 0, 1 or 2"),
        (ROW.replace(".75", "1.75"), "outside of [0, 1]"),
        (ROW.replace(".75", "nan"), "outside of [0, 1]"),
    ],
)
def test_an_image_with_invalid_yolo_keypoints_is_rejected(tmp_path: Path, row: str, why: str) -> None:
    (item,) = read_yolo(tmp_path, {"data.yaml": POSE, "labels/train/a.txt": row}).values()
    assert item.annotations is None
    assert why in item.flaw


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (POSE.replace("2, 3", "2, 4"), "kpt_shape must be the number of keypoints"),
        (POSE.replace("[2, 3]", "many"), "kpt_shape must be the number of keypoints"),
        (POSE.replace("[2, 3]", "[9999999999, 3]"), "kpt_shape must be the number of keypoints"),
        (POSE + "kpt_names: door", "kpt_names must be the list of keypoints of each class number"),
        (POSE + "kpt_names: {0: [a, a]}", "kpt_names of the class 0 must be a list of at most 2 different names"),
        (POSE + "kpt_names: {0: [a, b, c]}", "kpt_names of the class 0 must be a list of at most 2 different names"),
    ],
)
def test_invalid_declarations_of_keypoints_are_rejected(tmp_path: Path, config: str, why: str) -> None:
    with pytest.raises(UnreadableArchiveError, match=why):
        read_yolo(tmp_path, {"data.yaml": config, "labels/train/a.txt": ROW})


def test_a_dataset_of_boxes_gets_the_boxes_of_yolo_keypoints(tmp_path: Path) -> None:
    files = {"data.yaml": POSE, "images/train/a.png": "a", "labels/train/a.txt": ROW}
    root = put(tmp_path / "root", dict(files))
    (item,) = read_entries(root, yolo.read_yolo(root, ("box",))).values()
    assert [one.box for one in item.annotations or ()] == [
        PixelBox(x_min_px=0.375, y_min_px=0.25, x_max_px=0.625, y_max_px=0.75)
    ]


def test_yolo_rows_without_an_image_are_reported(tmp_path: Path) -> None:
    found = read_yolo(tmp_path, {"labels/train/a.txt": "", "labels/train/lost.txt": "0 .5 .5 .1 .1"})
    assert {name: item.is_there for name, item in found.items()} == {
        "images/train/a.png": True,
        "images/train/lost": False,
    }


def test_an_image_with_an_invalid_object_is_not_ingested(datasets: Datasets, tmp_path: Path) -> None:
    (item,) = read_yolo(tmp_path, {"labels/train/a.txt": "0 .5"}).values()
    ingest = Ingest()
    ((ingested,),) = IncomingFiles(datasets.store, ingest).batches(datasets.a_dataset(), OpenArchive([item]), 0)  # type: ignore[arg-type]
    assert (ingested.result.reason, ingested.result.message) == ("ANNOTATION_INVALID", item.flaw)
    assert ingest.calls == 0
