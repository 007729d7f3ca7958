"""Images with masks for training: rows of the manifest of a snapshot with their annotations, outlines rasterised."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from vesta_common.media.areas import pixels_of
from vesta_common.media.crowds import is_crowd
from vesta_common.media.mask_runs import bounds_of
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.datasets.v1 import AnnotationList

from vesta_training.example import Split
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.training_task import Row

_SHAPES: Final = ("polygon", "rotated_box", "mask")


def read_masked(rows: Iterator[Row]) -> tuple[tuple[BoxedExample, ...], int]:
    """Returns the annotated items, and the number of those that have other shapes and no polygon, rotated box or mask.

    Boxes are those around the masks. An object without a pixel on the image is dropped.
    """
    examples: list[BoxedExample] = []
    other_shapes_count = 0
    for row in rows:
        if row["accept_time"] is None:
            continue
        annotations = AnnotationList.FromString(row["annotations"]).annotations
        outlined = [one for one in annotations if one.WhichOneof("shape") in _SHAPES]
        if annotations and not outlined:
            other_shapes_count += 1
            continue
        examples.append(_example(row, outlined))
    return tuple(examples), other_shapes_count


def _example(row: Row, outlined: Sequence[Annotation]) -> BoxedExample:
    width, height = row["width_px"], row["height_px"]
    all_masks = [pixels_of(one, height, width) for one in outlined]
    masks = tuple(edges for edges in all_masks if len(edges))
    shown = [one for one, edges in zip(outlined, all_masks, strict=True) if len(edges)]
    concepts = tuple(one.concept for one in shown)
    corners = np.array([bounds_of(edges, width) for edges in masks], dtype=np.float64).reshape(-1, 4)
    return BoxedExample(
        item=row["name"],
        image_sha256=row["sha256"],
        concepts=tuple(sorted(set(concepts))),
        split=Split(row["split"]),
        control=row["control"],
        boxes=(corners / np.array([width, height] * 2)).astype(np.float32),
        box_concepts=concepts,
        width_px=width,
        height_px=height,
        masks=masks,
        crowds=tuple(position for position, one in enumerate(shown) if is_crowd(one)),
    )
