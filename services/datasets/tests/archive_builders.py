"""Archives that tests write and read, and annotations of each shape."""

from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from datasets_builders import a_zip
from PIL import Image
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
from vesta_datasets.archives.archives import ALL_SHAPES, TIMEOUT, open_archive, pack
from vesta_datasets.archives.entries import Entries, write_entries
from vesta_datasets.archives.layout import ArchivedItem
from vesta_datasets.archives.masks import mask_of
from vesta_datasets.operations.converted import as_rotated_box, in_pixels

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
DOORS = Annotation(
    concept="van",
    keypoints=Keypoints(
        points=[
            Keypoint(label="door", point=PixelPoint(x_px=8, y_px=12), visibility=Visibility.VISIBILITY_VISIBLE),
            Keypoint(label="roof", point=PixelPoint(x_px=16, y_px=6), visibility=Visibility.VISIBILITY_OCCLUDED),
        ]
    ),
)
ABSENT = Annotation(
    concept="van", keypoints=Keypoints(points=[Keypoint(label="door", visibility=Visibility.VISIBILITY_ABSENT)])
)
TRACK = Annotation(concept="van", track=Track(track_id="1"))
CROWD = Annotation(concept="car", mask=spots(), attributes={"crowd": "true", "colour": "red"})
BESIDE = mask_of(np.pad(np.ones((5, 9), np.bool_), ((20, HEIGHT_PX - 25), (30, WIDTH_PX - 39))))
SEEN_PARTLY = Annotation(concept="van", mask=BESIDE, attributes={"truncated": "true", "pose": "Left"})
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


def unpack(
    archive: Path,
    folder: Path,
    layout: ArchiveFormat.ValueType,
    shapes: Collection[str] = ALL_SHAPES,
    timeout: timedelta = TIMEOUT,
) -> Collection[ArchivedItem]:
    """Unpacks the files in any case, unlike an import, and returns the images; the arguments are those of `open_archive`."""
    opened = open_archive(archive, folder, layout, shapes, timeout)
    opened.unpack_files()
    return opened.items


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
        if item.has_rotated_boxes:
            annotations = [as_rotated_box(one) for one in annotations or ()]
        found = item.split, None if annotations is None else list(annotations)
        assert back.setdefault(item.path.name, found) == found, "copies of an image say the same"
    return back


def read_archive(tmp_path: Path, layout: ArchiveFormat.ValueType, files: dict[str, bytes]) -> dict[str, Any]:
    """Returns the annotations of the images of an archive, or why they cannot be imported."""
    tmp_path.mkdir(exist_ok=True)
    archive = tmp_path / "foreign.zip"
    archive.write_bytes(a_zip(files))
    found = unpack(archive, tmp_path / "in", layout)
    assert len(found) == sum(1 for _ in found)
    return {item.file_name: item.flaw or None if item.annotations is None else list(item.annotations) for item in found}


def put(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def read_entries(root: Path, entries: Any) -> dict[str, ArchivedItem]:
    """Returns the images that a reader yields, after they were written and read, by path."""
    file = root.parent / f"{root.name}.entries"
    count = write_entries(file, entries)
    found = Entries(file, root, count)
    assert len(found) == len(list(found)) == count
    return {item.file_name: item for item in found}
