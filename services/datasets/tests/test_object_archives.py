"""Archives of objects in any layout: detection of layouts, and round trips of boxes."""

from pathlib import Path

import pytest
from archive_builders import put, unpack
from datasets_builders import a_zip
from hypothesis import given
from hypothesis import strategies as st
from vesta_contracts.common.v1 import (
    Annotation,
    PixelBox,
)
from vesta_contracts.datasets.v1 import ArchiveFormat
from vesta_datasets.archives import voc
from vesta_datasets.archives.layout import ArchivedItem, UnreadableArchiveError
from vesta_datasets.archives.reading import detected
from vesta_datasets.archives.voc_writer import _xml
from vesta_datasets.archives.yolo_rows import RowReader
from vesta_datasets.archives.yolo_writer import _values

FORMATS = ArchiveFormat.Value
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
        read_back = RowReader({0: "van"}, None, ("box",)).annotation(row, "row 1").box
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
        ({"SegmentationClass/a.png": "", "JPEGImages/a.jpg": ""}, "PASCAL_VOC"),
        ({"van/a.png": "", "notes.yaml": "x: [", "data.json": ""}, "IMAGE_FOLDER"),
    ],
)
def test_layouts_are_detected(tmp_path: Path, files: dict[str, str], layout: str) -> None:
    assert detected(put(tmp_path, dict(files))) == FORMATS(f"ARCHIVE_FORMAT_{layout}")


def test_a_wrong_format_is_named_with_the_detected_one(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(a_zip({"Annotations/a.xml": b"<annotation/>", "JPEGImages/a.jpg": b"a"}))
    with pytest.raises(UnreadableArchiveError, match=r"none of data.yaml.*looks like Pascal VOC"):
        unpack(tmp_path / "a.zip", tmp_path / "in", FORMATS("ARCHIVE_FORMAT_YOLO"))
    (item,) = unpack(tmp_path / "a.zip", tmp_path / "again", FORMATS("ARCHIVE_FORMAT_UNSPECIFIED"))
    assert item.annotations == []
