"""Matches boxes of several answers to one image, and merges those of one object.

Boxes of two answers are matched one to one (Kuhn, The Hungarian method for the assignment problem, 1955): as many as possible, and of all
such matchings the one whose intersections over unions (IoU) have the largest sum. Pairs with an IoU below `IOU_MIN` are different objects.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import Annotation, PixelBox

IOU_MIN = 0.5

Corners = NDArray[np.float64]
"""`(N, 4)`: x_min, y_min, x_max, y_max in pixels."""


@dataclass(frozen=True)
class DrawnObject:
    """The boxes that several annotators drew for one object.

    Attributes:
        boxes: at most one per annotator, by the index of the answer.
    """

    boxes: dict[int, Annotation]

    @property
    def statement(self) -> tuple[str, int]:
        """The concept that most annotators chose, the first in alphabetical order if several did, and how many chose it."""
        counts = Counter(box.concept for box in self.boxes.values())
        return min(counts.items(), key=lambda entry: (-entry[1], entry[0]))

    def merged(self) -> Annotation:
        """Returns the box with the most frequent concept and the median of each coordinate of the annotators who chose the concept.

        Attributes are those that most of them state.
        """
        concept, _ = self.statement
        chosen = [box for box in self.boxes.values() if box.concept == concept]
        x_min, y_min, x_max, y_max = np.median(corners(chosen), axis=0).tolist()
        stated = Counter(attribute for box in chosen for attribute in box.attributes.items())
        return Annotation(
            concept=concept,
            box=PixelBox(x_min_px=x_min, y_min_px=y_min, x_max_px=x_max, y_max_px=y_max),
            attributes={name: value for (name, value), count in sorted(stated.items()) if 2 * count > len(chosen)},
        )


def drawn_objects(answers: Sequence[Sequence[Annotation]]) -> list[DrawnObject]:
    """Groups the boxes of several answers by object, whatever their concepts.

    The answer that overlaps most with the others is taken first, so that the groups hardly depend on the order of the answers. The others
    are matched with the first box of each group.
    """
    objects: list[DrawnObject] = []
    for index in _most_central_first(answers):
        own = answers[index]
        firsts = [next(iter(one.boxes.values())) for one in objects]
        matched = dict(match(firsts, own, same_concept=False).keys())
        taken = set(matched.values())
        for place, box_index in matched.items():
            objects[place].boxes[index] = own[box_index]
        objects += [DrawnObject({index: box}) for place, box in enumerate(own) if place not in taken]
    return objects


def match(
    one: Sequence[Annotation], other: Sequence[Annotation], *, same_concept: bool
) -> dict[tuple[int, int], float]:
    """Returns the pairs of indices of matched boxes, each with its IoU.

    Args:
        same_concept: only boxes of one concept are matched. Without it, equal concepts decide only between boxes that overlap equally.
    """
    if not one or not other:
        return {}
    from scipy.optimize import linear_sum_assignment  # here, because most processes never need it

    overlap = iou(corners(one), corners(other))
    equal = np.array([[a.concept == b.concept for b in other] for a in one])
    possible = (overlap >= IOU_MIN) & (equal | (not same_concept))
    weights = np.where(possible, len(one) + overlap + 1e-9 * equal, 0)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    return {
        (a, b): float(overlap[a, b]) for a, b in zip(rows.tolist(), columns.tolist(), strict=True) if possible[a, b]
    }


def iou(one: Corners, other: Corners) -> NDArray[np.float64]:
    """Returns `(N, M)` intersections over unions."""
    low, high = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=2)
    union = _areas(one)[:, None] + _areas(other)[None, :] - intersection
    shares: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return shares


def corners(boxes: Sequence[Annotation]) -> Corners:
    """Returns the corners of box annotations."""
    rows = [(a.box.x_min_px, a.box.y_min_px, a.box.x_max_px, a.box.y_max_px) for a in boxes]
    return np.array(rows, np.float64).reshape(-1, 4)


def _areas(boxes: Corners) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def _most_central_first(answers: Sequence[Sequence[Annotation]]) -> list[int]:
    """Returns the indices of the answers, by the sum of their overlaps with all others, the largest first."""
    overlaps = [
        sum(sum(match(own, other, same_concept=False).values()) for other in answers if other is not own)
        for own in answers
    ]
    return sorted(range(len(answers)), key=lambda index: -overlaps[index])
