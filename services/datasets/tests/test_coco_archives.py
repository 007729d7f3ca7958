"""Archives in the layout of COCO: images, categories and files."""

import json
import zipfile
from pathlib import Path

import pytest
from archive_builders import BOX, COCO, CROWD, HEIGHT_PX, MASK, POLYGON, WIDTH_PX, read_archive, unpack, written
from datasets_builders import a_png, a_zip, says
from pycocotools import coco as pycocotools_coco
from vesta_datasets.archives.archives import pack
from vesta_datasets.archives.layout import UnreadableArchiveError
from vesta_datasets.archives.masks import pixels_of


def test_an_annotation_file_has_the_fields_of_coco(tmp_path: Path) -> None:
    items = written(tmp_path, [[BOX, MASK, POLYGON, *says("van")]])
    with zipfile.ZipFile(pack(items, {"van": [], "car": []}, COCO, tmp_path / "out")) as archive:
        document = json.loads(archive.read("annotations/instances_train.json"))
        labels = json.loads(archive.read("annotations/labels_train.json"))
        assert archive.read("images/train/01000.png") == items[0].path.read_bytes()
    assert document["categories"] == labels["categories"]
    assert [(it["id"], it["name"]) for it in document["categories"]] == [(1, "van"), (2, "car")]
    (image,) = document["images"]
    assert (image["id"], image["width"], image["height"]) == (1, WIDTH_PX, HEIGHT_PX)
    assert labels["annotations"] == [{"id": 4, "image_id": 1, "category_id": 1}]
    box, mask, polygon = document["annotations"]
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


@pytest.mark.filterwarnings("ignore")
def test_pycocotools_reads_the_same_pixels(tmp_path: Path) -> None:
    archive = pack(written(tmp_path, [[MASK, CROWD, POLYGON]]), {"car": []}, COCO, tmp_path / "out")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "in")
    read_back = pycocotools_coco.COCO(str(tmp_path / "in/annotations/instances_train.json"))
    mask, crowd, polygon = read_back.loadAnns(read_back.getAnnIds())
    assert (read_back.annToMask(mask) == pixels_of(MASK.mask)).all()
    assert (mask["iscrowd"], crowd["iscrowd"], read_back.annToMask(polygon).sum()) == (0, 1, 52)


def a_coco_archive(task: str, *annotations: dict[str, object]) -> dict[str, bytes]:
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH_PX, "height": HEIGHT_PX}],
        "categories": [{"id": 1, "name": "van"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [1, 1, 4, 4], **one}
            for number, one in enumerate(annotations, 1)
        ],
    }
    return {f"annotations/{task}_val2017.json": json.dumps(document).encode(), "images/a.png": b"a picture"}


def test_an_image_with_an_annotation_without_a_shape_is_rejected(tmp_path: Path) -> None:
    lost = a_coco_archive("instances", {"segmentation": []}, {"bbox": []})
    why = "is rejected, because annotation 2 has no segmentation, bbox or keypoints"
    assert read_archive(tmp_path, COCO, lost) == {"images/a.png": why}


def test_an_image_that_is_only_listed_counts_as_unlabelled(tmp_path: Path) -> None:
    assert read_archive(tmp_path, COCO, a_coco_archive("image_info")) == {"images/a.png": None}


def test_an_object_in_several_parts_becomes_one_annotation(tmp_path: Path) -> None:
    parts = [[1, 1, 9, 1, 9, 9, 1, 9], [20, 20, 30, 20, 30, 30, 20, 30]]
    (found,) = read_archive(tmp_path, COCO, a_coco_archive("instances", {"segmentation": parts})).values()
    assert found is not None
    assert [one.WhichOneof("shape") for one in found] == ["mask"]
    assert pixels_of(found[0].mask).sum() == 8 * 8 + 10 * 10


def test_images_whose_names_differ_only_in_the_suffix_are_distinguished(tmp_path: Path) -> None:
    document = {
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
    found = read_archive(tmp_path, COCO, {"annotations/instances_train.json": json.dumps(document).encode(), **listed})
    assert {name: [one.concept for one in said or ()] for name, said in found.items()} == {
        "images/a.gif": ["van"],
        "images/a.png": ["car"],
        "images/b/a.png": [],
    }


def test_each_annotation_file_has_its_own_category_ids(tmp_path: Path) -> None:
    files = a_coco_archive("instances", {})
    document = json.loads(files["annotations/instances_val2017.json"])
    document["images"][0]["file_name"] = "b.png"
    document["categories"] = [{"id": 1, "name": "car"}, {"id": 2, "name": "van"}]
    files |= {"annotations/instances_train2017.json": json.dumps(document).encode(), "images/b.png": b"another picture"}
    found = read_archive(tmp_path, COCO, files)
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
    document = json.loads(files["annotations/instances_val2017.json"])
    document["images"].append({"id": 2, "file_name": "b.png", **size_px})
    files |= {"annotations/instances_val2017.json": json.dumps(document).encode(), "images/b.png": picture}
    found = read_archive(tmp_path, COCO, files)
    assert len(found["images/a.png"]) == 1
    assert "annotation 2 has several polygons, but the size of its image is unknown" in found["images/b.png"]


def test_a_mask_larger_than_the_image_limit_is_not_decoded(tmp_path: Path) -> None:
    mask = {"segmentation": {"size": [60_000, 60_000], "counts": "0"}}
    assert (
        "annotation 1 has a mask of 60000 x 60000 pixels"
        in read_archive(tmp_path, COCO, a_coco_archive("instances", mask))["images/a.png"]
    )


def test_the_size_of_an_image_is_read_from_its_file_if_the_archive_lacks_it(tmp_path: Path) -> None:
    parts = [[1, 1, 9, 1, 9, 9, 1, 9], [20, 20, 30, 20, 30, 30, 20, 30]]
    files = a_coco_archive("instances", {"segmentation": parts})
    document = json.loads(files["annotations/instances_val2017.json"])
    del document["images"][0]["width"], document["images"][0]["height"]
    files |= {"annotations/instances_val2017.json": json.dumps(document).encode(), "images/a.png": a_png("a picture")}
    (found,) = read_archive(tmp_path, COCO, files).values()
    assert found is not None
    assert [(one.mask.height_px, one.mask.width_px) for one in found] == [(HEIGHT_PX, WIDTH_PX)]


def test_an_archive_without_shapes_and_labels_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UnreadableArchiveError, match="instances_"):
        read_archive(tmp_path, COCO, a_coco_archive("captions"))


def test_an_image_that_is_named_but_missing_is_reported(tmp_path: Path) -> None:
    files = a_coco_archive("instances", {})
    document = json.loads(files["annotations/instances_val2017.json"])
    document["images"].append({"id": 2, "file_name": "b.png", "width": WIDTH_PX, "height": HEIGHT_PX})
    archive = tmp_path / "foreign.zip"
    archive.write_bytes(a_zip({**files, "annotations/instances_val2017.json": json.dumps(document).encode()}))
    found = unpack(archive, tmp_path / "in", COCO)
    assert [(item.file_name, item.is_there) for item in found] == [("images/a.png", True), ("images/b.png", False)]


def test_a_parser_error_is_reported_as_an_invalid_archive(tmp_path: Path) -> None:
    deep = b'{"images": [' + b"[" * 200_000 + b"]" * 200_000 + b"]}"
    with pytest.raises(UnreadableArchiveError) as refused:
        read_archive(tmp_path, COCO, {"annotations/instances_train.json": deep, "images/a.png": b""})
    assert refused.value.reason == "ARCHIVE_UNREADABLE"
