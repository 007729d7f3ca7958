"""Labelled photographs for the demo: a folder of the user with one sub-folder per class, or scanned digits.

Run as a program, it writes the digits into a folder.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from vesta_contracts.common.v1 import Annotation, ImageLabel, TaskType

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
SPLITS = {
    **dict.fromkeys(("train", "training", "validation", "valid", "val"), "train"),
    **dict.fromkeys(("test", "testing", "evaluation", "eval"), "test"),
}
DIGIT_SIDE_PX = 64


def label(concept: str) -> Annotation:
    """Returns the annotation that an image shows `concept`."""
    return Annotation(concept=concept, image_label=ImageLabel())


@dataclass(frozen=True)
class Photograph:
    """An image file with its true annotations."""

    path: Path
    annotations: tuple[Annotation, ...]

    @property
    def label(self) -> str:
        """The class of an image that has one."""
        (only,) = self.annotations
        return only.concept


@dataclass(frozen=True)
class Photographs:
    """A labelled data set.

    Attributes:
        name: its name, a valid id.
        pool: the images that annotators can label.
        test: the held-out images; empty if the platform assigns the splits.
        task_type: what the annotations are.
    """

    name: str
    pool: list[Photograph]
    test: list[Photograph]
    task_type: TaskType.ValueType = TaskType.TASK_TYPE_CLASSIFICATION

    @property
    def labels(self) -> list[str]:
        """The classes, in order."""
        images = [*self.pool, *self.test]
        return sorted({annotation.concept for image in images for annotation in image.annotations})


def set_name(folder: Path) -> str:
    """Returns the name of a data set, from that of its folder."""
    return "".join(c if c.isalnum() else "-" for c in folder.resolve().name.lower()).strip("-") or "images"


def read_folder(folder: Path) -> Photographs:
    """Reads a folder with one sub-folder per class, or with such folders below train, validation and test, in either
    order.

    Ignores a folder that contains all others, and hidden files. Folders below a class belong to the class. If classes
    are below splits, images outside of a class have no label and are ignored.

    Raises:
        ValueError: there is no image, or there are fewer than two classes; the message describes the expected layout.
    """
    pool: list[Photograph] = []
    test: list[Photograph] = []
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    placed = [(path, path.relative_to(folder).parts[:-1]) for path in paths]
    visible = [(path, folders) for path, folders in placed if not any(map(_is_hidden, (*folders, path.name)))]
    unwrapped = _unwrapped(visible)
    side_of = _sides({name for _, folders in unwrapped for name in folders})
    under_sides = any(
        folders[0] in side_of and _side_and_label(folders, side_of, under_sides=True)[1] for _, folders in unwrapped
    )
    for path, folders in unwrapped:
        side, concept = _side_and_label(folders, side_of, under_sides=under_sides)
        if concept:
            (test if side == "test" else pool).append(Photograph(path, (label(concept),)))
    found = Photographs(set_name(folder), pool, test)
    if len(found.labels) < 2 or not pool:
        raise ValueError(
            f"{folder} has {len(pool) + len(test)} images of {len(found.labels)} classes; "
            "expected: at least two sub-folders with images, one per class, optionally below "
            "train/ and test/"
        )
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _unwrapped(placed: list[tuple[Path, tuple[str, ...]]]) -> list[tuple[Path, tuple[str, ...]]]:
    """Removes leading folders that contain everything, as in many archives, and images that are in no folder."""
    placed = [(path, folders) for path, folders in placed if folders]
    while len({folders[0] for _, folders in placed}) == 1 and any(len(folders) > 1 for _, folders in placed):
        placed = [(path, folders[1:]) for path, folders in placed if folders[1:]]
    return placed


def _sides(names: set[str]) -> dict[str, str]:
    """Returns the folders that name a split: `train`, `Test_Set`, and `seg_train` if there is also `seg_test` or
    similar.
    """
    named: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in names:
        words = re.split(r"[_ -]", re.sub(r"[_ -]?set$", "", name.lower()))
        for index, word in enumerate(words):
            if word in SPLITS:
                named[(*words[:index], "*", *words[index + 1 :])][name] = SPLITS[word]
    certain = [found for pattern, found in named.items() if pattern == ("*",) or len(found) > 1]
    return {name: side for found in certain for name, side in found.items()}


def _side_and_label(folders: tuple[str, ...], side_of: dict[str, str], *, under_sides: bool = False) -> tuple[str, str]:
    """Returns train or test, and the class: the first folder that does not name a split; empty if there is none.

    Args:
        under_sides: whether classes are below splits; otherwise a single folder is a class, whatever its name.
    """
    if len(set(folders)) == 1:
        return "train", "" if under_sides else folders[0]
    concept = next((name for name in folders if name not in side_of), "")
    return next((side_of[name] for name in folders if name in side_of), "train"), concept


def write_digits(target: Path, per_class_max: int | None = None) -> Path:
    """Writes the 1,797 scanned digits of scikit-learn, or the first of each, as PNG files, one folder per digit."""
    from sklearn.datasets import load_digits

    if not target.exists():
        scratch = target.with_suffix(".partial")
        digits = load_digits()
        for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            folder = scratch / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            if len(list(folder.iterdir())) == per_class_max:
                continue
            image = Image.fromarray((255 - pixels * 255 / 16).astype(np.uint8)).resize(
                (DIGIT_SIDE_PX, DIGIT_SIDE_PX), Image.Resampling.BICUBIC
            )
            image.save(folder / f"{index:04d}.png")
        scratch.rename(target)
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes digits into a new folder."""
    parser = argparse.ArgumentParser(
        description="Writes the scanned digits of scikit-learn as PNG files, one folder per digit."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-class", type=int, help="the maximum number per digit; all by default")
    options = parser.parse_args(arguments)
    if options.folder.exists():
        parser.error(f"{options.folder} already exists; delete it, or choose another folder")
    if options.per_class is not None and options.per_class < 1:
        parser.error("--per-class must be at least 1")
    write_digits(options.folder, options.per_class)


if __name__ == "__main__":
    main()
