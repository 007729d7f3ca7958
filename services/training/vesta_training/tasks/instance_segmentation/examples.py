"""Images with masks for training: rows of the manifest of a snapshot with their annotations, polygons rasterised."""

from collections.abc import Iterator, Sequence

import numpy as np
from vesta_common.media.mask_runs import Edges, bounds_of, edges_of, rasterised
from vesta_common.media.rotated_boxes import polygon_of
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.datasets.v1 import AnnotationList

from vesta_training.example import Split
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.training_task import Row


def read_masked(rows: Iterator[Row]) -> tuple[tuple[BoxedExample, ...], int]:
    """Returns the annotated items, and the number of those that have other shapes and neither a polygon nor a mask.

    Boxes are those around the masks. An object without a pixel on the image is dropped.
    """
    examples: list[BoxedExample] = []
    other_shapes_count = 0
    for row in rows:
        if row["accept_time"] is None:
            continue
        annotations = AnnotationList.FromString(row["annotations"]).annotations
        outlined = [one for one in annotations if one.HasField("polygon") or one.HasField("mask")]
        if annotations and not outlined:
            other_shapes_count += 1
            continue
        examples.append(_example(row, outlined))
    return tuple(examples), other_shapes_count


def _example(row: Row, outlined: Sequence[Annotation]) -> BoxedExample:
    width, height = row["width_px"], row["height_px"]
    all_masks = [_edges(one, height, width) for one in outlined]
    masks = tuple(edges for edges in all_masks if len(edges))
    concepts = tuple(one.concept for one, edges in zip(outlined, all_masks, strict=True) if len(edges))
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
    )


def _edges(annotation: Annotation, height_px: int, width_px: int) -> Edges:
    if annotation.HasField("mask"):
        return edges_of(annotation.mask)
    return rasterised(polygon_of(annotation), height_px, width_px)
