"""What the formats have in common: images with their objects as an annotation file states them, and splits by the names of folders."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxes import SizePx
from masks import Pixels
from photographs import SPLITS, SUFFIXES


@dataclass(frozen=True)
class RawObject:
    """An object of an annotation file.

    Attributes:
        corners: x_min, y_min, x_max, y_max in pixels; None if the file has no box.
        pixels: returns its pixels in an image of a width and height; None if the file has no outline or mask.
        is_region: whether the pixels are those of all objects of the concept.
    """

    concept: str
    corners: Sequence[float] | None = None
    pixels: Callable[[SizePx], Pixels] | None = None
    is_region: bool = False


@dataclass(frozen=True)
class RawImage:
    """An image with its objects.

    Attributes:
        in_test: whether it belongs to the test split.
    """

    path: Path
    objects: Sequence[RawObject]
    in_test: bool


def image_files(folder: Path) -> list[Path]:
    """Returns the image files below a folder, without hidden ones, in order."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def is_test(path: Path, folder: Path) -> bool:
    """Whether a folder or file name in the path stands for the test split: `test`, `test2017`, `instances_test2017`."""
    parts = [*path.relative_to(folder).parts[:-1], path.stem]
    words = [word for part in parts for word in re.split(r"[_. -]", re.sub(r"\d+$", "", part.lower()))]
    return next((SPLITS[word] for word in words if word in SPLITS), "train") == "test"
