"""Synthetic scenes for detection and segmentation: scanned digits of scikit-learn at random places and scales on a textured ground.

They are written in the COCO format, so that they are read like the data of a user. Digits of the test scenes occur in no other scene.
"""

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_masks

WIDTH_PX, HEIGHT_PX = 320, 240
INK_MIN = 0.3
"""Pixels that are covered by at least this share of ink belong to a digit."""
EMPTY_SHARE = 0.1
OVERLAP_SHARE_MAX = 0.1
"""Of the smaller of two digits, by their boxes."""
PLACES_TRIED_MAX = 50
TEST_SHARE = 0.25
POOL_SCENES, TEST_SCENES = 400, 100

Ink = NDArray[np.float32]
"""`(H, W)` in [0, 1]: how much of the ground the ink covers."""


@dataclass(frozen=True)
class Style:
    """How scenes look.

    Attributes:
        name: of their folder.
        digit_side_px: the smallest and the largest size of a digit.
        digits_max: the number of digits in a scene, at most.
        concepts: the digits that occur.
    """

    name: str
    digit_side_px: tuple[int, int] = (28, 72)
    digits_max: int = 6
    concepts: str = "0123456789"


DEFAULT = Style("scenes")


@dataclass(frozen=True)
class Digit:
    """A scanned digit: its ink `(8, 8)` in [0, 1], and what it is."""

    ink: Ink
    concept: str


@dataclass(frozen=True)
class Scene:
    """An image with digits.

    Attributes:
        pixels: `(H, W, 3)` uint8.
        boxes: the box around the ink of each digit: concept, x, y, width and height in pixels.
        owners: `(H, W)`, the number of the digit that each pixel shows, from 1 in the order of the boxes; 0 for the ground.
    """

    pixels: NDArray[np.uint8]
    boxes: list[tuple[str, int, int, int, int]]
    owners: NDArray[np.uint8]


def write_scenes(
    target: Path,
    pool_count: int = POOL_SCENES,
    test_count: int = TEST_SCENES,
    seed: int = 0,
    style: Style = DEFAULT,
) -> Path:
    """Writes scenes into `train/` and `test/` of a new folder, each with `_annotations.coco.json`. Keeps an existing folder."""
    if target.exists():
        return target
    digits = [digit for digit in _scanned_digits(seed) if digit.concept in style.concepts]
    held_out = int(TEST_SHARE * len(digits))
    scratch = target.with_suffix(".partial")
    shutil.rmtree(scratch, ignore_errors=True)  # of an interrupted call
    draw = random.Random(seed)
    _write(scratch / "train", digits[held_out:], pool_count, style, draw)
    _write(scratch / "test", digits[:held_out], test_count, style, draw)
    scratch.rename(target)
    return target


def compose(digits: list[Digit], draw: random.Random, style: Style = DEFAULT) -> Scene:
    """Returns a scene with some of the digits, or with none."""
    ground = _ground(draw)
    colour = np.array([draw.uniform(0, 90) for _ in range(3)], np.float32)
    boxes: list[tuple[str, int, int, int, int]] = []
    owners = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    count = 0 if draw.random() < EMPTY_SHARE else draw.randint(1, style.digits_max)
    for digit in draw.sample(digits, count):
        ink = _scaled(digit.ink, style, draw)
        height, width = ink.shape
        place = _free_place(width, height, boxes, draw)
        if place is None:
            continue
        x, y = place
        area = ground[y : y + height, x : x + width]
        area += ink[:, :, None] * (colour - area)
        boxes.append((digit.concept, x, y, width, height))
        owners[y : y + height, x : x + width][ink > INK_MIN] = len(boxes)
    return Scene(np.clip(ground, 0, 255).astype(np.uint8), boxes, owners)


def _write(folder: Path, digits: list[Digit], count: int, style: Style, draw: random.Random) -> None:
    folder.mkdir(parents=True)
    concepts = sorted({digit.concept for digit in digits})
    number_of = {concept: number for number, concept in enumerate(concepts, start=1)}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in range(1, count + 1):
        scene = compose(digits, draw, style)
        name = f"scene-{number:05d}.jpg"
        Image.fromarray(scene.pixels).save(folder / name, quality=92)
        images.append({"id": number, "file_name": name, "width": WIDTH_PX, "height": HEIGHT_PX})
        annotations += [
            {
                "id": len(annotations) + place,
                "image_id": number,
                "category_id": number_of[concept],
                "bbox": [x, y, width, height],
                "area": int((scene.owners == place).sum()),
                "segmentation": _run_lengths(scene.owners == place),
                "iscrowd": 0,
            }
            for place, (concept, x, y, width, height) in enumerate(scene.boxes, start=1)
        ]
    categories = [{"id": number, "name": concept} for concept, number in number_of.items()]
    document = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "_annotations.coco.json").write_text(json.dumps(document))


def _scanned_digits(seed: int) -> list[Digit]:
    """Returns the 1,797 digits in random order."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(seed).permutation(len(found.target))
    return [Digit((found.images[i] / 16).astype(np.float32), str(found.target[i])) for i in order]


def _ground(draw: random.Random) -> NDArray[np.float32]:
    """Returns a light, coarsely and finely textured ground `(HEIGHT_PX, WIDTH_PX, 3)`, different in each scene."""
    noise = np.random.default_rng(draw.getrandbits(64))
    layers = [
        np.asarray(_coarse_noise(noise, cells).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC), np.float32)
        for cells in (4, 12, 96)
    ]
    light = draw.uniform(150, 200)
    texture = 0.22 * (layers[0] - 128) + 0.15 * (layers[1] - 128) + 0.15 * (layers[2] - 128)
    ground: NDArray[np.float32] = (light + texture).astype(np.float32)
    return ground


def _coarse_noise(noise: np.random.Generator, cells: int) -> Image.Image:
    return Image.fromarray(noise.integers(0, 256, (cells, cells, 3), np.uint8))


def _run_lengths(pixels: NDArray[np.bool_]) -> dict[str, object]:
    """Returns a mask as COCO's run lengths, which are in column-major order."""
    encoded = coco_masks.encode(np.asfortranarray(pixels, np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def _scaled(ink: Ink, style: Style, draw: random.Random) -> Ink:
    """Returns the ink at a random scale, cut to its extent."""
    side = round(draw.uniform(*style.digit_side_px))
    grown = Image.fromarray((255 * ink).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    covered: Ink = np.asarray(grown, np.float32) / np.float32(255)
    rows, columns = np.nonzero(covered.max(axis=1) > INK_MIN)[0], np.nonzero(covered.max(axis=0) > INK_MIN)[0]
    cut: Ink = covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cut


def _free_place(
    width: int, height: int, boxes: list[tuple[str, int, int, int, int]], draw: random.Random
) -> tuple[int, int] | None:
    """Returns a place where a digit hardly overlaps with others; None if none was found."""
    for _ in range(PLACES_TRIED_MAX):
        x, y = draw.randint(0, WIDTH_PX - width), draw.randint(0, HEIGHT_PX - height)
        shared = (
            (
                max(0, min(x + width, other_x + other_width) - max(x, other_x))
                * max(0, min(y + height, other_y + other_height) - max(y, other_y)),
                min(width * height, other_width * other_height),
            )
            for _, other_x, other_y, other_width, other_height in boxes
        )
        if all(overlap <= OVERLAP_SHARE_MAX * smaller for overlap, smaller in shared):
            return x, y
    return None
