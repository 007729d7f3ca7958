"""Archives in the field's formats: unpacked with limits, read and written by Datumaro in a process of its own."""

import multiprocessing
import shutil
import stat
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesta_contracts.common.v1 import Annotation, ImageLabel, PixelBox, PixelPoint, Polygon, Ring
from vesta_contracts.datasets.v1 import ArchiveFormat

ENTRIES_MAX = 2_000_000
UNPACKED_BYTES_MAX = 64 * 1024**3
RATIO_MAX = 200
_FORMATS = {
    ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER: "imagenet",
    ArchiveFormat.ARCHIVE_FORMAT_COCO: "coco",
}
_SPLITS = {
    "train": "TRAIN",
    "training": "TRAIN",
    "val": "VALIDATION",
    "valid": "VALIDATION",
    "validation": "VALIDATION",
    "test": "TEST",
}
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


class UnreadableArchiveError(ValueError):
    """The archive cannot be read; the message says why and what is expected."""


@dataclass(frozen=True)
class ArchivedItem:
    """An image of an archive.

    Attributes:
        file_name: its path in the archive.
        path: where it lies unpacked.
        split: TRAIN, VALIDATION or TEST; empty where the archive does not say.
        annotations: None where it does not say what the image shows.
    """

    file_name: str
    path: Path
    split: str
    annotations: Sequence[Annotation] | None
    width_px: int = 0
    height_px: int = 0


def unpack(archive: Path, folder: Path, layout: ArchiveFormat.ValueType) -> list[ArchivedItem]:
    """Unpacks an archive and reads what its images show.

    Raises:
        UnreadableArchiveError: it is no zip archive, is a bomb, reaches outside itself, or is not laid out as expected.
    """
    _extract(archive, folder)
    found = _apart(_read, str(folder), _FORMATS[layout])
    if not found:
        raise UnreadableArchiveError(
            "the archive holds no image in the layout asked for: a folder a class (with train, val, test above, if at all), "
            "or COCO's annotations/ and images/"
        )
    return [
        ArchivedItem(
            name,
            Path(path),
            split,
            None if annotations is None else [Annotation.FromString(one) for one in annotations],
        )
        for name, path, split, annotations in found
    ]


def pack(items: Sequence[ArchivedItem], concepts: Sequence[str], layout: ArchiveFormat.ValueType, folder: Path) -> Path:
    """Writes an archive of labelled images; answers where it lies."""
    rows = [
        (
            str(item.path),
            item.split.lower() or "train",
            [one.SerializeToString() for one in item.annotations or ()],
            item.height_px,
            item.width_px,
        )
        for item in items
    ]
    _apart(_write, rows, list(concepts), _FORMATS[layout], str(folder))
    return Path(shutil.make_archive(str(folder), "zip", folder))


def _extract(archive: Path, folder: Path) -> None:
    """Unpacks within limits; links and paths that lead outside are refused."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            size = sum(entry.file_size for entry in entries)
            packed = sum(entry.compress_size for entry in entries) or 1
            if len(entries) > ENTRIES_MAX or size > UNPACKED_BYTES_MAX or size / packed > RATIO_MAX:
                raise UnreadableArchiveError(
                    f"the archive would unpack to {size} bytes in {len(entries)} files, which is more than is allowed"
                )
            for entry in entries:
                target = (folder / entry.filename).resolve()
                if not target.is_relative_to(folder.resolve()) or stat.S_ISLNK(entry.external_attr >> 16):
                    raise UnreadableArchiveError(f"the archive's entry {entry.filename!r} leads outside of it")
            opened.extractall(folder)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise UnreadableArchiveError(f"the archive cannot be unpacked: {error}") from error


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a function in a process that ends with it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except UnreadableArchiveError:
            raise
        except Exception as error:
            raise UnreadableArchiveError(f"Datumaro cannot make sense of the archive: {error}") from error


def _read(folder: str, layout: str) -> list[tuple[str, str, str, list[bytes] | None]]:
    """Reads a folder through Datumaro: file name, path, split and serialised annotations of each image."""
    root = _root_of(Path(folder))
    if layout == "imagenet":
        return _read_image_folder(root)
    import datumaro as dm

    dataset = dm.Dataset.import_from(str(root), layout)
    names = [label.name for label in dataset.categories()[dm.AnnotationType.label]]
    found: list[tuple[str, str, str, list[bytes] | None]] = []
    for item in dataset:
        path = getattr(item.media, "path", "")
        if path and Path(path).is_file():
            annotations = [
                _from_datumaro(one, names) for one in item.annotations if getattr(one, "label", None) is not None
            ]
            told = [one.SerializeToString() for one in annotations if one is not None]
            found.append(
                (
                    str(Path(path).relative_to(root)),
                    path,
                    _SPLITS.get(str(item.subset).split("_")[-1].lower(), ""),
                    told,
                )
            )
    return found


def _read_image_folder(root: Path) -> list[tuple[str, str, str, list[bytes] | None]]:
    """A folder a class, through Datumaro's `imagenet` reader, side by side where train, val and test lie above."""
    import datumaro as dm

    found = _put_aside(root)
    sides = [side for side in sorted(root.iterdir()) if side.is_dir() and side.name.lower() in _SPLITS]
    for side in sides or [root]:
        if not any(side.rglob("*.*")):
            continue
        dataset = dm.Dataset.import_from(str(side), "imagenet")
        names = [label.name for label in dataset.categories()[dm.AnnotationType.label]]
        split = _SPLITS.get(side.name.lower(), "") if sides else ""
        for item in dataset:
            path = Path(getattr(item.media, "path", ""))
            if path.is_file():
                labels = [Annotation(concept=names[one.label], image_label=ImageLabel()) for one in item.annotations]
                told = [one.SerializeToString() for one in labels] or None
                found.append((str(path.relative_to(root)), str(path), split, told))
    return found


def _put_aside(root: Path) -> list[tuple[str, str, str, list[bytes] | None]]:
    """Moves what Datumaro takes for no image by its name out of its way; it is handed on, to be judged by its content.

    Images among it, such as GIF, keep their folder's name as label.
    """
    from datumaro.util.image import IMAGE_EXTENSIONS

    aside = root.parent / f"{root.name}-aside"
    found: list[tuple[str, str, str, list[bytes] | None]] = []
    for path in sorted(root.rglob("*")):
        suffix = path.suffix.lower()
        if path.is_file() and suffix not in IMAGE_EXTENSIONS:
            target = aside / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
            label = Annotation(concept=path.parent.name, image_label=ImageLabel())
            told = [label.SerializeToString()] if suffix in _SUFFIXES else None
            found.append((str(path.relative_to(root)), str(target), "", told))
    return found


def _root_of(folder: Path) -> Path:
    """The folder within an archive that wraps everything in one more, as many tools do."""
    while True:
        inside = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].name.lower() in {*_SPLITS, "annotations", "images"}:
            return folder
        if not any(entry.is_dir() for entry in inside[0].iterdir()):
            return folder
        folder = inside[0]


def _from_datumaro(annotation: Any, names: Sequence[str]) -> Annotation | None:
    """A Datumaro annotation as ours; None for kinds that say nothing of one object."""
    kind = annotation.type.name
    concept = names[annotation.label]
    if kind == "label":
        return Annotation(concept=concept, image_label=ImageLabel())
    if kind == "bbox":
        box = PixelBox(
            x_min_px=annotation.x,
            y_min_px=annotation.y,
            x_max_px=annotation.x + annotation.w,
            y_max_px=annotation.y + annotation.h,
        )
        return Annotation(concept=concept, box=box)
    if kind == "polygon":
        pairs = zip(annotation.points[::2], annotation.points[1::2], strict=True)
        ring = Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in pairs])
        return Annotation(concept=concept, polygon=Polygon(outline=ring))
    return None


def _write(
    rows: Sequence[tuple[str, str, list[bytes], int, int]], concepts: Sequence[str], layout: str, folder: str
) -> None:
    """Writes items through Datumaro."""
    import datumaro as dm

    index = {concept: number for number, concept in enumerate(concepts)}

    def to_datumaro(number: int, annotation: Annotation) -> Any:
        label = index[annotation.concept]
        if annotation.HasField("box"):
            box = annotation.box
            return dm.Bbox(
                box.x_min_px,
                box.y_min_px,
                box.x_max_px - box.x_min_px,
                box.y_max_px - box.y_min_px,
                label=label,
                id=number,
                group=number,
            )
        if annotation.HasField("polygon"):
            points = [value for point in annotation.polygon.outline.points for value in (point.x_px, point.y_px)]
            return dm.Polygon(points, label=label, id=number, group=number)
        return dm.Label(label, id=number, group=number)

    for split in sorted({row[1] for row in rows}):
        items = [
            dm.DatasetItem(
                id=Path(path).stem,
                subset=split,
                media=dm.Image.from_file(path=path, size=(height, width)),
                annotations=[to_datumaro(number, Annotation.FromString(one)) for number, one in enumerate(told, 1)],
            )
            for path, side, told, height, width in rows
            if side == split
        ]
        dataset = dm.Dataset.from_iterable(items, categories=list(concepts), media_type=dm.Image)
        target = Path(folder) / split if layout == "imagenet" else Path(folder)
        dataset.export(str(target), layout, save_media=True)
