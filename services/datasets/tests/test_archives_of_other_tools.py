"""Archives as CVAT, Datumaro, FiftyOne, Label Studio, LabelImg, Roboflow and Ultralytics write them."""

import json
from pathlib import Path
from typing import Any

import pytest
from archive_builders import unpack
from datasets_builders import a_zip
from vesta_contracts.common.v1 import Annotation, PixelBox
from vesta_contracts.datasets.v1 import ArchiveFormat
from vesta_datasets.archives.layout import UnreadableArchiveError

VAN = Annotation(concept="van", box=PixelBox(x_min_px=1, y_min_px=2, x_max_px=21, y_max_px=12))
ROW = "0 0.171875 0.14583333333333334 0.3125 0.20833333333333334\n"
XML = (
    "<annotation><filename>a.jpg</filename><size><width>64</width><height>48</height></size><object><name>van</name><bndbox>"
    "<xmin>1</xmin><xmax>21</xmax><ymin>2</ymin><ymax>12</ymax></bndbox></object></annotation>"
)


def coco(*names: str, first: int = 1, **lists: Any) -> str:
    """Returns an annotation file of images of which the first one has a box."""
    images = [{"id": number, "file_name": name, "width": 64, "height": 48} for number, name in enumerate(names, first)]
    box = {"id": 0, "image_id": first, "category_id": 1, "bbox": [1, 2, 20, 10.0], "segmentation": [], "iscrowd": 0}
    categories = [{"id": 0, "name": "vehicles", "supercategory": "none"}, {"id": 1, "name": "van"}]
    return json.dumps({"info": {}, **lists, "categories": categories, "images": images, "annotations": [box]})


def pictures(*paths: str) -> dict[str, str]:
    return {path: path for path in paths}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        pytest.param(
            {
                "README.roboflow.txt": "",
                "train/_annotations.coco.json": coco("a_jpg.rf.1.jpg", first=0),
                "valid/_annotations.coco.json": coco("b_jpg.rf.2.jpg", first=0),
                **pictures("train/a_jpg.rf.1.jpg", "valid/b_jpg.rf.2.jpg"),
            },
            {"train/a_jpg.rf.1.jpg": "TRAIN", "valid/b_jpg.rf.2.jpg": "VALIDATION"},
            id="COCO of Roboflow",
        ),
        pytest.param(
            {
                "data.yaml": "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['van', 'car']\nroboflow:\n  version: 1\n",
                "train/labels/a.txt": ROW,
                "valid/labels/b.txt": ROW,
                **pictures("train/images/a.jpg", "valid/images/b.jpg"),
            },
            {"train/images/a.jpg": "TRAIN", "valid/images/b.jpg": "VALIDATION"},
            id="YOLO of Roboflow",
        ),
        pytest.param({"train/a.xml": XML, "train/a.jpg": "a"}, {"train/a.jpg": "TRAIN"}, id="VOC of Roboflow"),
        pytest.param(
            {"annotations/instances_default.json": coco("sub/a.jpg"), "images/default/sub/a.jpg": "a"},
            {"images/default/sub/a.jpg": ""},
            id="COCO of CVAT",
        ),
        pytest.param(
            {
                "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n",
                "obj.names": "van\ncar\n",
                "train.txt": "data/obj_Train_data/a.jpg\n",
                "valid.txt": "data/obj_Validation_data/b.jpg\n",
                "obj_Train_data/a.txt": ROW,
                "obj_Validation_data/b.txt": ROW,
                **pictures("obj_Train_data/a.jpg", "obj_Validation_data/b.jpg"),
            },
            {"obj_Train_data/a.jpg": "TRAIN", "obj_Validation_data/b.jpg": "VALIDATION"},
            id="YOLO 1.1 of CVAT and Datumaro",
        ),
        pytest.param(
            {
                "data.yaml": "names:\n  0: van\npath: .\ntrain: train.txt\n",
                "train.txt": "data/images/train/a.jpg\n",
                "labels/train/a.txt": ROW,
                "images/train/a.jpg": "a",
            },
            {"images/train/a.jpg": "TRAIN"},
            id="Ultralytics YOLO of CVAT",
        ),
        pytest.param(
            {
                "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\nvan:250,50,83::\n",
                "ImageSets/Main/default.txt": "a\n",
                "Annotations/a.xml": XML,
                "JPEGImages/a.jpg": "a",
            },
            {"JPEGImages/a.jpg": ""},
            id="VOC of CVAT",
        ),
        pytest.param(
            {"result.json": coco("images/3f-a.jpg"), "images/3f-a.jpg": "a"},
            {"images/3f-a.jpg": ""},
            id="COCO of Label Studio",
        ),
        pytest.param(
            {"result.json": coco("images\\3f-a.jpg"), "images/3f-a.jpg": "a"},
            {"images/3f-a.jpg": ""},
            id="COCO of Label Studio on Windows",
        ),
        pytest.param(
            {"result.json": coco("/data/upload/1/3f-a.jpg"), "images/3f-a.jpg": "a"},
            {"images/3f-a.jpg": ""},
            id="COCO of Label Studio with addresses",
        ),
        pytest.param(
            {"classes.txt": "van\ncar\n", "notes.json": '{"info": {}}', "labels/a.txt": ROW, "images/a.jpg": "a"},
            {"images/a.jpg": ""},
            id="YOLO of Label Studio",
        ),
        pytest.param({"Annotations/a.xml": XML, "images/a.jpg": "a"}, {"images/a.jpg": ""}, id="VOC of Label Studio"),
        pytest.param({"labels.json": coco("a.jpg"), "data/a.jpg": "a"}, {"data/a.jpg": ""}, id="COCO of FiftyOne"),
        pytest.param(
            {
                "dataset.yaml": "names:\n  0: van\npath: /export\ntrain: ./images/train/\nval: ./images/val/\n",
                "labels/train/a.txt": ROW,
                "labels/val/b.txt": ROW,
                **pictures("images/train/a.jpg", "images/val/b.jpg"),
            },
            {"images/train/a.jpg": "TRAIN", "images/val/b.jpg": "VALIDATION"},
            id="YOLOv5 of FiftyOne",
        ),
        pytest.param(
            {
                "obj.data": "train = images.txt\nnames = obj.names\n",
                "obj.names": "van",
                "images.txt": "data/a.jpg\n",
                "data/a.txt": ROW,
                "data/a.jpg": "a",
            },
            {"data/a.jpg": "TRAIN"},
            id="YOLOv4 of FiftyOne",
        ),
        pytest.param({"labels/a.xml": XML, "data/a.jpg": "a"}, {"data/a.jpg": ""}, id="VOC of FiftyOne"),
        pytest.param(
            {"train/_darknet.labels": "van", "train/a.txt": ROW, "train/a.jpg": "a"},
            {"train/a.jpg": "TRAIN"},
            id="Darknet of Roboflow",
        ),
        pytest.param({"classes.txt": "van", "a.txt": ROW, "a.jpg": "a"}, {"a.jpg": ""}, id="YOLO of LabelImg"),
        pytest.param({"a.xml": XML, "a.jpg": "a"}, {"a.jpg": ""}, id="VOC of LabelImg"),
        pytest.param(
            {"annotations/instances_train2017.json": coco("9.jpg"), "train2017/9.jpg": "a"},
            {"train2017/9.jpg": "TRAIN"},
            id="original COCO",
        ),
        pytest.param(
            {"train.json": coco("a.jpg"), "val.json": coco("b.jpg"), **pictures("images/a.jpg", "images/b.jpg")},
            {"images/a.jpg": "TRAIN", "images/b.jpg": "VALIDATION"},
            id="COCO files named by split",
        ),
    ],
)
def test_boxes_and_splits_are_read(tmp_path: Path, files: dict[str, str], found: dict[str, str]) -> None:
    (tmp_path / "a.zip").write_bytes(a_zip({name: content.encode() for name, content in files.items()}))
    items = list(unpack(tmp_path / "a.zip", tmp_path / "in", ArchiveFormat.ARCHIVE_FORMAT_UNSPECIFIED, ("box",)))
    assert {item.file_name: item.split for item in items} == found
    for item in items:
        assert item.is_there
        (one,) = item.annotations or ()
        assert one.concept == "van"
        scale = (64, 48) if item.is_normalized else (1, 1)
        corners = one.box.x_min_px * scale[0], one.box.y_min_px * scale[1], one.box.x_max_px * scale[0]
        assert corners == pytest.approx((VAN.box.x_min_px, VAN.box.y_min_px, VAN.box.x_max_px))


@pytest.mark.parametrize(
    "files",
    [
        {"classes.txt": "van\ncar\n", "van/a.jpg": "a", "car/b.jpg": "b"},
        {"train/_annotations.createml.json": "[]", "van/a.jpg": "a"},
        {"export.json": '[{"data": {"image": "a.jpg"}}]', "van/a.jpg": "a"},
        {"index.json": '{"images": ["a.jpg"], "info": {}}', "van/a.jpg": "a"},
    ],
)
def test_files_with_the_names_of_other_layouts_are_no_annotations(tmp_path: Path, files: dict[str, str]) -> None:
    (tmp_path / "a.zip").write_bytes(a_zip({name: content.encode() for name, content in files.items()}))
    items = list(unpack(tmp_path / "a.zip", tmp_path / "in", ArchiveFormat.ARCHIVE_FORMAT_UNSPECIFIED))
    found = {item.file_name: [one.concept for one in item.annotations or ()] for item in items}
    assert found["van/a.jpg"] == ["van"]


def test_a_list_of_classes_that_the_archive_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(a_zip({"obj.data": b"names = data/obj.names\n", "a.jpg": b"a"}))
    with pytest.raises(UnreadableArchiveError, match=r"obj\.data names data/obj\.names, which is not in the archive"):
        unpack(tmp_path / "a.zip", tmp_path / "in", ArchiveFormat.ARCHIVE_FORMAT_UNSPECIFIED)


def test_captions_and_maps_of_coco_are_not_read(tmp_path: Path) -> None:
    files = {"annotations/instances_default.json": coco("a.jpg"), "images/default/a.jpg": "a"}
    others = {f"annotations/{task}_default.json": coco("a.jpg") for task in ("captions", "panoptic", "stuff")}
    (tmp_path / "a.zip").write_bytes(a_zip({name: text.encode() for name, text in {**files, **others}.items()}))
    (item,) = unpack(tmp_path / "a.zip", tmp_path / "in", ArchiveFormat.ARCHIVE_FORMAT_UNSPECIFIED, ("box",))
    assert list(item.annotations or ()) == [VAN]


def test_class_folders_are_no_annotations_of_objects(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(a_zip({"annotations/train.json": b"{}", "images/a.jpg": b"a", "van/b.jpg": b"b"}))
    with pytest.raises(UnreadableArchiveError, match=r"no shapes that can be read.*annotations/ and images/ for COCO"):
        unpack(tmp_path / "a.zip", tmp_path / "in", ArchiveFormat.ARCHIVE_FORMAT_UNSPECIFIED, ("box",))
    (tmp_path / "b.zip").write_bytes(a_zip({"a.jpg": b"a"}))
    (item,) = unpack(tmp_path / "b.zip", tmp_path / "again", ArchiveFormat.ARCHIVE_FORMAT_UNSPECIFIED, ("box",))
    assert item.annotations is None
