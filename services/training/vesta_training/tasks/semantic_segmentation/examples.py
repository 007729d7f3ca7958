"""Images with masks for training: rows of the manifest of a snapshot with their annotations."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from vesta_common.media.mask_runs import Edges, edges_of
from vesta_common.media.segmentation_maps import Map
from vesta_contracts.datasets.v1 import AnnotationList

from vesta_training.errors import LearningError
from vesta_training.example import Example, Split
from vesta_training.tasks.training_task import Row

COLUMNS = ("name", "sha256", "width_px", "height_px", "split", "annotations", "control", "accept_time")


@dataclass(frozen=True, slots=True, eq=False)
class MaskedExample(Example):
    """An item with its masks. `concepts` are those of the masks; an item without masks shows none of the concepts.

    Attributes:
        masks: one per concept and in the order of `concepts`, without pixels in several of them.
        width_px, height_px: of the stored image.
    """

    masks: tuple[Edges, ...] = ()
    width_px: int = 0
    height_px: int = 0

    @property
    def identity(self) -> str:
        """The image with all that is learned from it."""
        digest = hashlib.sha256()
        for mask in self.masks:
            digest.update(mask.tobytes())
        return f"{self.image_sha256};{self.concepts};{digest.hexdigest()};{self.split}"

    def map(self, numbers: Mapping[str, int]) -> Map:
        """Returns the concept of each pixel of the image; see `Map`.

        Args:
            numbers: of the concepts, from 1. Pixels of others have no concept.
        """
        steps = np.zeros(self.height_px * self.width_px + 1, np.int16)
        for concept, mask in zip(self.concepts, self.masks, strict=True):
            steps[mask[::2]] += numbers.get(concept, 0)
            steps[mask[1::2]] -= numbers.get(concept, 0)
        pixels: Map = np.cumsum(steps[:-1], dtype=np.int16).astype(np.uint8)
        return pixels.reshape(self.height_px, self.width_px)


def read_masked(rows: Iterator[Row]) -> tuple[tuple[MaskedExample, ...], int]:
    """Returns the annotated items, and the number of those that have other shapes and no mask.

    Raises:
        LearningError: a mask has another size than its image.
    """
    examples: list[MaskedExample] = []
    other_shapes_count = 0
    for row in rows:
        if row["accept_time"] is None:
            continue
        annotations = AnnotationList.FromString(row["annotations"]).annotations
        masked = sorted((one for one in annotations if one.HasField("mask")), key=lambda one: one.concept)
        if annotations and not masked:
            other_shapes_count += 1
            continue
        size = (row["width_px"], row["height_px"])
        for one in masked:
            if (one.mask.width_px, one.mask.height_px) != size:
                raise LearningError(
                    f"{row['name']} has a mask of {one.mask.width_px} × {one.mask.height_px} pixels on an image of "
                    f"{size[0]} × {size[1]}; annotate the item again, and create a new snapshot"
                )
        examples.append(
            MaskedExample(
                item=row["name"],
                image_sha256=row["sha256"],
                concepts=tuple(one.concept for one in masked),
                split=Split(row["split"]),
                control=row["control"],
                masks=tuple(edges_of(one.mask) for one in masked),
                width_px=row["width_px"],
                height_px=row["height_px"],
            )
        )
    return tuple(examples), other_shapes_count
