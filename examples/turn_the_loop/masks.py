"""Masks of objects: made, moved and compared. In pixels of the image as it is shown: rotated by EXIF, row-major from the top left."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from boxes import SizePx
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_masks
from scipy import ndimage
from vesta_contracts.common.v1 import Annotation, Mask, SegmentationMap

Pixels = NDArray[np.bool_]
"""`(H, W)`, true inside."""


def mask(concept: str, pixels: Pixels) -> Annotation | None:
    """Returns a mask annotation; None without a pixel."""
    if not pixels.any():
        return None
    flat = pixels.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=flat.size).tolist()
    height_px, width_px = pixels.shape
    runs_px = [0, *runs] if flat[0] else runs
    return Annotation(concept=concept, mask=Mask(height_px=height_px, width_px=width_px, runs_px=runs_px))


def pixels_of(annotation: Annotation) -> Pixels:
    """Returns the pixels of a mask annotation."""
    runs = annotation.mask.runs_px
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(annotation.mask.height_px, annotation.mask.width_px)


def polygon_pixels(rings: Iterable[Sequence[float]], size_px: SizePx) -> Pixels:
    """Returns the pixels inside of any of the rings, given as x and y of one point after the other, as in COCO."""
    width, height = size_px
    drawn = [list(ring) for ring in rings if len(ring) >= 6]
    if not drawn:
        return np.zeros((height, width), np.bool_)
    return decoded(coco_masks.merge(coco_masks.frPyObjects(drawn, height, width)))


def decoded(runs: Mapping[str, Any]) -> Pixels:
    """Returns the pixels of COCO's compressed run lengths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, about pycocotools
        pixels: Pixels = coco_masks.decode(runs).astype(bool)
    return pixels


def joined(masks: Sequence[tuple[str, Pixels]]) -> list[Annotation]:
    """Returns one mask for each concept. A pixel of several has that of the smallest mask, which lies on top most likely."""
    if not masks:
        return []
    names = sorted({concept for concept, _ in masks})
    numbers = np.zeros(masks[0][1].shape, np.int64)
    for concept, pixels in sorted(masks, key=lambda entry: -int(entry[1].sum())):
        numbers[pixels] = names.index(concept) + 1
    found = (mask(concept, numbers == number) for number, concept in enumerate(names, start=1))
    return [one for one in found if one is not None]


def masks_of_map(segmentation: SegmentationMap) -> list[Annotation]:
    """Returns one mask for each concept of a predicted map."""
    numbers = np.repeat(np.array(segmentation.concept_numbers, np.int64), np.array(segmentation.runs_px, np.int64))
    shape = (segmentation.height_px, segmentation.width_px)
    found = (
        mask(concept, (numbers == number).reshape(shape)) for number, concept in enumerate(segmentation.concepts, 1)
    )
    return [one for one in found if one is not None]


def scaled_mask(annotation: Annotation, size_px: SizePx) -> Annotation:
    """Returns a mask annotation in an image that is resized to a width and height. Thin masks keep at least some pixels."""
    pixels = pixels_of(annotation)
    resized = np.array(Image.fromarray(pixels).resize(size_px, Image.Resampling.NEAREST), np.bool_)
    rows, columns = np.nonzero(pixels)
    resized[rows * size_px[1] // pixels.shape[0], columns * size_px[0] // pixels.shape[1]] = True
    scaled = Annotation()
    scaled.CopyFrom(annotation)
    if (small := mask(annotation.concept, resized)) is not None:
        scaled.mask.CopyFrom(small.mask)
    return scaled


def mask_ious(truth: Sequence[Annotation], found: Sequence[Annotation]) -> NDArray[np.float64]:
    """Returns `(N, M)` intersections over unions in [0, 1] of masks of one image."""
    rows, columns = ([pixels_of(one) for one in masks] for masks in (truth, found))
    shares = np.zeros((len(rows), len(columns)))
    for row, own in enumerate(rows):
        for column, its in enumerate(columns):
            shares[row, column] = (own & its).sum() / max(1, (own | its).sum())
    return shares


def moved(pixels: Pixels, x_px: int, y_px: int) -> Pixels:
    """Returns the pixels shifted to the right and down; what leaves the image is cut."""
    shifted = np.zeros_like(pixels)
    height, width = pixels.shape
    to_y, to_x = slice(max(0, y_px), height + min(0, y_px)), slice(max(0, x_px), width + min(0, x_px))
    from_y, from_x = slice(max(0, -y_px), height - max(0, y_px)), slice(max(0, -x_px), width - max(0, x_px))
    shifted[to_y, to_x] = pixels[from_y, from_x]
    return shifted


def grown(pixels: Pixels, by_px: int) -> Pixels:
    """Returns the pixels with an edge of some pixels added, or removed if `by_px` is negative; unchanged if nothing would be left."""
    if not by_px:
        return pixels
    change = ndimage.binary_dilation if by_px > 0 else ndimage.binary_erosion
    changed: Pixels = change(pixels, iterations=abs(by_px))
    return changed if changed.any() else pixels
