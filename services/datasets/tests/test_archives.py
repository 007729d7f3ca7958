"""Exports can be imported without loss, or are rejected. Unreadable annotations are never imported as answers."""

import os
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from archive_builders import (
    ABSENT,
    BESIDE,
    BOX,
    COCO,
    CROWD,
    DOORS,
    FOLDERS,
    HEIGHT_PX,
    HIDDEN,
    HOLED,
    INNER,
    MASK,
    NO_PIXELS,
    PARTLY,
    POINTS,
    POLYGON,
    SEEN_PARTLY,
    TRACK,
    TURNED,
    VOC,
    WIDTH_PX,
    YOLO,
    read_archive,
    there_and_back,
    unpack,
    written,
)
from datasets_builders import a_zip, says
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from vesta_common.errors import FailedPrecondition
from vesta_common.ids import new_id
from vesta_contracts.common.v1 import (
    Annotation,
    Keypoints,
    Mask,
    PixelBox,
    RotatedBox,
)
from vesta_contracts.datasets.v1 import ArchiveFormat
from vesta_datasets.archives.archives import open_archive, pack
from vesta_datasets.archives.class_folders import read_folders
from vesta_datasets.archives.layout import ArchivedItem, UnreadableArchiveError
from vesta_datasets.archives.masks import mask_of, pixels_of
from vesta_datasets.archives.unzip import hash_zip, unpack_zip
from vesta_datasets.items.bounding_boxes import bounding_box


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
        (
            COCO,
            [[TURNED, BOX], [Annotation(concept="car", rotated_box=TURNED.rotated_box, attributes={"crowd": "true"})]],
        ),
        (VOC, [[BOX, PARTLY], [], [BOX]]),
        (VOC, [[MASK, SEEN_PARTLY], [], [BOX], [SEEN_PARTLY]]),
        (YOLO, [[], [INNER], [POLYGON, POLYGON]]),
        (YOLO, [[], [DOORS, POINTS], [DOORS], [Annotation(concept="van", keypoints=Keypoints())]]),
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
        (
            COCO,
            [Annotation(concept="van", rotated_box=TURNED.rotated_box, attributes={"rotation": "30"})],
            "'rotation'",
        ),
        (VOC, [TURNED], "a rotated box"),
        (COCO, [TRACK], "a track"),
        (COCO, [NO_PIXELS], "a mask without pixels"),
        (VOC, [POLYGON], "a polygon"),
        (VOC, says("car"), "image label"),
        (VOC, [MASK, MASK], "masks that overlap"),
        (VOC, [MASK, BOX], "a box and a mask"),
        (VOC, [NO_PIXELS], "a mask without pixels"),
        (VOC, [CROWD], "the attribute c"),
        (VOC, [Annotation(concept="a:b", mask=BESIDE)], "the concept 'a:b'"),
        (VOC, [Annotation(concept="background", mask=BESIDE)], "the concept 'background'"),
        (VOC, [Annotation(concept="van", box=BOX.box, attributes={"colour": "red"})], "colour"),
        (VOC, [Annotation(concept=" van", box=BOX.box)], "the concept ' van'"),
        (YOLO, [MASK], "a mask"),
        (YOLO, [HOLED], "a polygon with holes"),
        (YOLO, [PARTLY], "the attribute"),
        (YOLO, [INNER, POLYGON], "shapes of several kinds"),
        (YOLO, [ABSENT], "a keypoint that is not in the image"),
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


def test_items_with_keypoints_and_items_with_other_shapes_are_no_yolo_archive(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="box and keypoints"):
        there_and_back(tmp_path, YOLO, [[DOORS], [INNER]])


def test_rotated_boxes_survive_yolo(tmp_path: Path) -> None:
    turned = [
        Annotation(
            concept="van",
            rotated_box=RotatedBox(x_center_px=30, y_center_px=20, width_px=16, height_px=6, angle_deg=angle),
        )
        for angle in (-130, -45, 0, 30, 90, 179)
    ]
    back = there_and_back(tmp_path, YOLO, [turned])
    ((_, found),) = back.values()
    values = [
        [
            one.rotated_box.x_center_px,
            one.rotated_box.y_center_px,
            one.rotated_box.width_px,
            one.rotated_box.height_px,
            one.rotated_box.angle_deg,
        ]
        for one in found or ()
    ]
    assert np.array(values) == pytest.approx(
        np.array([[30, 20, 16, 6, one.rotated_box.angle_deg] for one in turned]), abs=1e-6
    )


def test_keypoints_that_a_concept_has_no_longer_are_not_lost(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="the keypoint 'roof', which van has no longer"):
        pack(written(tmp_path, [[DOORS]]), {"van": ["door"]}, YOLO, tmp_path / "out")


@pytest.mark.filterwarnings("ignore")
def test_datumaro_reads_the_same_masks_from_voc(tmp_path: Path) -> None:
    import datumaro

    archive = pack(written(tmp_path, [[MASK, SEEN_PARTLY], []]), {"van": [], "car": []}, VOC, tmp_path / "out")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "in")
    found = datumaro.Dataset.import_from(str(tmp_path / "in"), "voc")
    names = [label.name for label in found.categories()[datumaro.AnnotationType.label]]
    (item,) = [item for item in found if item.id.endswith("01000")]
    masks = {names[one.label]: one.image for one in item.annotations if one.type.name == "mask"}
    assert set(masks) == {"van", "car"}
    assert (masks["car"] == pixels_of(MASK.mask)).all()
    assert (masks["van"] == pixels_of(BESIDE)).all()


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


def test_an_empty_archive_is_rejected(tmp_path: Path) -> None:
    for layout in (FOLDERS, COCO, VOC, YOLO, ArchiveFormat.ARCHIVE_FORMAT_UNSPECIFIED):
        with pytest.raises(UnreadableArchiveError):
            read_archive(tmp_path / str(layout), layout, {})


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_rejected_or_yields_unchanged_images_and_labels(tmp_path: Path, method: int) -> None:
    content = b"a picture" * 9
    whole = a_zip({"van/é.jpg": content}, method)
    archive = tmp_path / "damaged.zip"
    rejected_count = 0
    for place, byte in product(range(len(whole)), (0x00, 0xFF)):
        archive.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
        try:
            found = read_folders(hash_zip(tmp_path, archive.name), tmp_path / f"{place}-{byte}")
            unpack_zip(tmp_path, (archive.name, f"{place}-{byte}"))
        except UnreadableArchiveError:
            rejected_count += 1
        else:  # the damage is in a time or an attribute, which is not read, or hides or removes the file
            if not found:
                rejected_count += 1
                continue
            (item,) = found
            assert [one.concept for one in item.annotations or ()] == ["van"]
            assert item.path.read_bytes() == content
            assert item.sha256 == sha256(content).hexdigest()
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
    assert read_archive(tmp_path, FOLDERS, files) == {
        "b/one.jpg": says("b", "t"),
        "b/one.png": says("b"),
        "t/one.jpg": says("t"),
        "t/copy.jpg": says("b", "t"),
        "test/x.jpg": says("test"),
        "no_label/y.jpg": None,
        "loose.jpg": None,
    }


def test_class_folders_are_unpacked_when_their_files_are_needed(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(a_zip({"mine/van/1.jpg": b"1", "mine/car/2.jpg": b"2"}))
    opened = open_archive(archive, tmp_path / "in", FOLDERS)
    assert [item.sha256 for item in opened.items] == [sha256(content).hexdigest() for content in (b"2", b"1")]
    assert not (tmp_path / "in").exists()
    opened.unpack_files()
    opened.unpack_files()
    assert [item.path.read_bytes() for item in opened.items] == [b"2", b"1"]


@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)))
def test_pixels_decode_to_their_runs(pixels: np.ndarray) -> None:
    mask = mask_of(pixels)
    assert sum(mask.runs_px) == pixels.size
    assert (pixels_of(mask) == pixels).all()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9))
def test_runs_decode_to_their_pixels(runs: list[int]) -> None:
    mask = Mask(height_px=1, width_px=sum(runs), runs_px=runs)
    assert mask_of(pixels_of(mask)) == mask


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
from archive_builders import COCO, there_and_back
with TemporaryDirectory() as folder:
    print(len(there_and_back(Path(folder), COCO, [says("van"), says("car")])))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TMPDIR": "/tmp"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd="/", check=False, capture_output=True, text=True
    )
    assert (ended.stdout.strip().splitlines()[-1:], ended.returncode) == (["2"], 0), ended.stdout + ended.stderr
