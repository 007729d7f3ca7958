"""Images with boxes for training: rows of the manifest of a snapshot with their annotations."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from vesta_common.media.crowds import is_crowd
from vesta_common.media.mask_runs import Edges
from vesta_contracts.datasets.v1 import AnnotationList

from vesta_training.example import Array, Example, Split
from vesta_training.tasks.training_task import Row

COLUMNS = ("name", "sha256", "width_px", "height_px", "split", "annotations", "control", "accept_time")


@dataclass(frozen=True, slots=True, eq=False)
class BoxedExample(Example):
    """An item with its boxes. `concepts` are the distinct concepts of the boxes; an item without boxes shows none of the concepts.

    Attributes:
        boxes: `(M, 4)`: x_min, y_min, x_max, y_max as shares of the width and of the height of the image, in [0, 1].
        box_concepts: `(M,)`, in the order of the boxes.
        width_px, height_px: of the stored image.
        masks: `(M,)` on the stored image, each inside of its box; None if objects are boxes.
        crowds: positions of the boxes that are crowds, which are neither objects nor background.
    """

    boxes: Array = None  # type: ignore[assignment]
    box_concepts: tuple[str, ...] = ()
    width_px: int = 0
    height_px: int = 0
    masks: tuple[Edges, ...] | None = None
    crowds: tuple[int, ...] = ()

    @property
    def is_crowd(self) -> npt.NDArray[np.bool_]:
        """`(M,)`, which boxes are crowds."""
        return np.isin(np.arange(len(self.box_concepts)), self.crowds)

    @property
    def has_objects(self) -> bool:
        """Whether there is an object that can be learned."""
        return len(self.box_concepts) > len(self.crowds)

    @property
    def identity(self) -> str:
        """The image with all that is learned from it."""
        content = hashlib.sha256(self.boxes.tobytes())
        for edges in self.masks or ():
            content.update(edges.tobytes())
        crowds = f";{self.crowds}" if self.crowds else ""
        return f"{self.image_sha256};{self.box_concepts};{content.hexdigest()};{self.split}{crowds}"

    def numbers(self, concepts: dict[str, int]) -> npt.NDArray[np.int64]:
        """Returns `(M,)`, the number of the concept of each box."""
        return np.array([concepts[concept] for concept in self.box_concepts], dtype=np.int64)


def read_boxed(rows: Iterator[Row]) -> tuple[tuple[BoxedExample, ...], int]:
    """Returns the annotated items, and the number of those that have other shapes and no box.

    Boxes are clipped to the image. A box without area on the image is dropped.
    """
    examples: list[BoxedExample] = []
    other_shapes_count = 0
    for row in rows:
        if row["accept_time"] is None:
            continue
        annotations = AnnotationList.FromString(row["annotations"]).annotations
        boxed = [annotation for annotation in annotations if annotation.HasField("box")]
        if annotations and not boxed:
            other_shapes_count += 1
            continue
        corners = np.array(
            [[one.box.x_min_px, one.box.y_min_px, one.box.x_max_px, one.box.y_max_px] for one in boxed],
            dtype=np.float64,
        ).reshape(-1, 4)
        size = (row["width_px"], row["height_px"])
        boxes = np.clip(corners / np.array(size * 2), 0, 1).astype(np.float32)
        visible = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        shown = [one for one, is_visible in zip(boxed, visible, strict=True) if is_visible]
        concepts = tuple(one.concept for one in shown)
        examples.append(
            BoxedExample(
                item=row["name"],
                image_sha256=row["sha256"],
                concepts=tuple(sorted(set(concepts))),
                split=Split(row["split"]),
                control=row["control"],
                boxes=boxes[visible],
                box_concepts=concepts,
                width_px=row["width_px"],
                height_px=row["height_px"],
                crowds=tuple(position for position, one in enumerate(shown) if is_crowd(one)),
            )
        )
    return tuple(examples), other_shapes_count
