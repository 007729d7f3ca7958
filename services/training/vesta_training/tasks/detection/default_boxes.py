"""Default boxes, from whose sizes and positions a detector predicts boxes (SSD, Liu et al., arXiv 1512.02325).

Their sizes are the cluster centres of the training boxes, as in YOLOv2 (Redmon and Farhadi, arXiv 1612.08242), because the sizes of
the objects of a dataset usually vary little: small objects are found far more often than with sizes of a fixed scale.
"""

import numpy as np

from vesta_training.example import Array
from vesta_training.features.onnx_graph import STRIDES

# A box is found at the coarsest stride whose cells are small in comparison: with sides of at least so many strides.
STRIDES_PER_SIDE = 3.0
ROUNDS = 30
SIDE_MIN = 1 / 64
"""Least side of a default box, as a share of the image."""


def choose_sizes(sizes: Array, side_px: int, per_cell: int, seed: int) -> tuple[Array, ...]:
    """Returns for each stride the `(P, 2)` widths and heights of its default boxes, as shares of the sides of the image.

    Args:
        sizes: `(M, 2)`, widths and heights of the training boxes.
        side_px: side of the input of the network.
        per_cell: number of default boxes of each cell, P.
    """
    generator = np.random.default_rng(seed)
    geometric = np.sqrt(np.maximum(sizes.prod(axis=1), 0)) * side_px
    limits = [STRIDES_PER_SIDE * stride for stride in STRIDES[1:]]
    level = np.digitize(geometric, limits)
    chosen = []
    for index, stride in enumerate(STRIDES):
        own = np.maximum(sizes[level == index], SIDE_MIN)
        centres = _cluster(own, per_cell, generator)
        # Without enough different boxes: squares between the sizes of this stride.
        usual = STRIDES_PER_SIDE * stride * np.geomspace(1.0, 2.0, per_cell + 1)[:-1] / side_px
        squares = np.stack([usual, usual], axis=1).astype(np.float32)
        chosen.append(np.concatenate([centres, squares])[:per_cell].clip(SIDE_MIN, 1.0).astype(np.float32))
    return tuple(chosen)


def lay_out(sizes: tuple[Array, ...], side_px: int) -> Array:
    """Returns the `(A, 4)` default boxes of all cells, x_center, y_center, width, height, as shares of the image.

    In the order of stride, row, column, size.
    """
    boxes = []
    for stride, of_cell in zip(STRIDES, sizes, strict=True):
        cells = side_px // stride
        centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        y, x = np.meshgrid(centres, centres, indexing="ij")
        places = np.stack([x, y], axis=2).reshape(-1, 1, 2)
        shape = (len(places), len(of_cell), 2)
        boxes.append(
            np.concatenate([np.broadcast_to(places, shape), np.broadcast_to(of_cell[None], shape)], axis=2).reshape(
                -1, 4
            )
        )
    return np.concatenate(boxes).astype(np.float32)


def _cluster(sizes: Array, count: int, generator: np.random.Generator) -> Array:
    """Returns at most `count` cluster centres of widths and heights, by k-means with the distance 1 − IoU and medians as centres."""
    different = np.unique(sizes, axis=0)
    if len(different) <= count:
        return different
    centres = different[generator.choice(len(different), count, replace=False)]
    for _ in range(ROUNDS):
        common = np.minimum(sizes[:, None], centres[None]).prod(axis=2)
        union = sizes.prod(axis=1)[:, None] + centres.prod(axis=1)[None] - common
        nearest = (common / union).argmax(axis=1)
        moved = np.stack(
            [
                np.median(sizes[nearest == index], axis=0) if (nearest == index).any() else centres[index]
                for index in range(count)
            ]
        )
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
