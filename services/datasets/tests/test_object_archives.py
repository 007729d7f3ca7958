"""Archives of objects: COCO, YOLO and Pascal VOC. Bad input is rejected with its place, and an image is never imported in part."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets_builders import Datasets, Ingest, a_zip
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_masks
from vesta_contracts.common.v1 import Annotation, Media, PixelBox
from vesta_contracts.connection.v1 import IngestedMedia
from vesta_contracts.datasets.v1 import ArchiveFormat
from vesta_datasets.archives import coco, voc, yolo
from vesta_datasets.archives.archives import unpack
from vesta_datasets.archives.entries import Entries, write_entries
from vesta_datasets.archives.layout import ArchivedItem, UnreadableArchiveError
from vesta_datasets.archives.reading import detected
from vesta_datasets.archives.run_lengths import RunsError, uncompressed
from vesta_datasets.archives.voc_writer import _xml
from vesta_datasets.archives.yolo_writer import _values
from vesta_datasets.operations.converted import converted_to
from vesta_datasets.operations.incoming import IncomingFiles, Ingested
from vesta_datasets.task_types.detection import Detection

FORMATS = ArchiveFormat.Value
BOXES = ("box",)
VOC_OBJECT = (
    "<object><name>van</name><bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"
)


def put(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def read(root: Path, entries: Any) -> dict[str, ArchivedItem]:
    """Returns the images that a reader yields, after they were written and read, by path."""
    file = root.parent / f"{root.name}.entries"
    count = write_entries(file, entries)
    found = Entries(file, root, count)
    assert len(found) == len(list(found)) == count
    return {item.file_name: item for item in found}


def read_coco(tmp_path: Path, shapes: tuple[str, ...] = BOXES, **lists: Any) -> dict[str, ArchivedItem]:
    told = {
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "van"}],
        **lists,
    }
    root = put(tmp_path / "root", {"annotations/instances_train.json": json.dumps(told), "images/a.png": b"a"})
    return read(root, coco.read_coco(root, shapes, tmp_path))


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
    (item,) = read(root, coco.read_coco(root, ("keypoints", "box"), tmp_path)).values()
    assert item.file_name == "val2017/a.png"
    assert [one.WhichOneof("shape") for one in item.annotations or ()] == ["box", "box"]


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


def read_yolo(tmp_path: Path, files: dict[str, str]) -> dict[str, ArchivedItem]:
    named = {"data.yaml": "train: images/train\nval:\nnames:\n  0: van\n  3: car\n", "images/train/a.png": "a", **files}
    root = put(tmp_path / "root", dict(named))
    return read(root, yolo.read_yolo(root))


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
    entry, _ = converted_to(Detection(), Ingested(item, IngestedMedia(media=media)))
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
    (item,) = read(root, yolo.read_yolo(root)).values()
    assert (item.file_name, item.split, len(item.annotations or ())) == (f"{place}/a.png", "TRAIN", 1)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"labels/train/a.txt": "1 .5 .5 .1 .1"}, "row 1 has the class 1, but data.yaml names the classes 0 to 3"),
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


def test_yolo_rows_without_an_image_are_reported(tmp_path: Path) -> None:
    found = read_yolo(tmp_path, {"labels/train/a.txt": "", "labels/train/lost.txt": "0 .5 .5 .1 .1"})
    assert {name: item.is_there for name, item in found.items()} == {
        "images/train/a.png": True,
        "images/train/lost": False,
    }


def read_voc(tmp_path: Path, files: dict[str, str]) -> dict[str, ArchivedItem]:
    root = put(tmp_path / "root", {"JPEGImages/a.jpg": "a", **files})
    return read(root, voc.read_voc(root))


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


def test_an_image_of_another_size_than_its_archive_states_is_rejected(tmp_path: Path) -> None:
    (item,) = read_coco(tmp_path).values()
    turned = IngestedMedia(media=Media(width_px=48, height_px=64))
    _, result = converted_to(Detection(), Ingested(item, turned))
    assert (result.reason, "48 x 64" in result.message, "64 x 48" in result.message) == ("SIZE_MISMATCH", True, True)


side = st.floats(0, 1).map(lambda share: round(share, 9))
sides = st.lists(side, min_size=2, max_size=2, unique=True).map(sorted)
boxes = st.builds(lambda x, y: (x[0], y[0], x[1], y[1]), sides, sides)


@given(st.lists(boxes, max_size=5))
def test_boxes_survive_voc_and_yolo(drawn: list[tuple[float, float, float, float]]) -> None:
    width_px, height_px = 640, 427
    told = [
        Annotation(
            concept="van",
            box=PixelBox(
                x_min_px=x_min * width_px,
                y_min_px=y_min * height_px,
                x_max_px=x_max * width_px,
                y_max_px=y_max * height_px,
            ),
        )
        for x_min, y_min, x_max, y_max in drawn
    ]
    item = ArchivedItem("a.png", Path("a.png"), "TRAIN", told, width_px, height_px)
    tree = voc.ElementTree.fromstring(_xml(item))
    assert [voc._object(element, 1, 0.0) for element in tree.iterfind("object")] == told
    for annotation in told:
        row = ["0", *map(repr, _values(annotation, item))]
        read_back = yolo._annotation(row, {0: "van"}, "row 1").box
        found = [read_back.x_min_px * width_px, read_back.y_min_px * height_px, read_back.x_max_px * width_px]
        box = annotation.box
        assert found == pytest.approx([box.x_min_px, box.y_min_px, box.x_max_px], abs=1e-6)


@pytest.mark.parametrize(
    ("files", "layout"),
    [
        ({"annotations/instances_train.json": "{}"}, "COCO"),
        ({"train/_annotations.coco.json": "{}"}, "COCO"),
        ({"data.yaml": "names: [van]", "labels/a.txt": ""}, "YOLO"),
        ({"Annotations/a.xml": ""}, "PASCAL_VOC"),
        ({"van/a.png": "", "notes.yaml": "x: [", "data.json": ""}, "IMAGE_FOLDER"),
    ],
)
def test_layouts_are_detected(tmp_path: Path, files: dict[str, str], layout: str) -> None:
    assert detected(put(tmp_path, dict(files))) == FORMATS(f"ARCHIVE_FORMAT_{layout}")


def test_a_wrong_format_is_named_with_the_detected_one(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(a_zip({"Annotations/a.xml": an_xml("").encode(), "JPEGImages/a.jpg": b"a"}))
    with pytest.raises(UnreadableArchiveError, match=r"no data.yaml.*looks like Pascal VOC"):
        unpack(tmp_path / "a.zip", tmp_path / "in", FORMATS("ARCHIVE_FORMAT_YOLO"))
    (item,) = unpack(tmp_path / "a.zip", tmp_path / "again", FORMATS("ARCHIVE_FORMAT_UNSPECIFIED"))
    assert item.annotations == []


def test_an_image_with_an_invalid_object_is_not_ingested(datasets: Datasets, tmp_path: Path) -> None:
    (item,) = read_yolo(tmp_path, {"labels/train/a.txt": "0 .5"}).values()
    ingest = Ingest()
    ((ingested,),) = IncomingFiles(datasets.store, ingest).batches(datasets.a_dataset(), [item], 0)  # type: ignore[arg-type]
    assert (ingested.result.reason, ingested.result.message) == ("ANNOTATION_INVALID", item.flaw)
    assert ingest.calls == 0
