"""Keypoints: objects are sets of named points."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_contracts.common.v1 import Annotation, Keypoint, PixelPoint, Visibility

from vesta_annotation.task_types.matching import Indices, Shapes
from vesta_annotation.task_types.objects import ObjectTask

POINT_CONSTANT = 0.1
"""The distance of two points, as a share of the object's scale, at which their similarity is exp(-1/2), for all points alike. In COCO's
definition of the object keypoint similarity it is twice the standard deviation of annotators: 0.05 for eyes to 0.21 for hips."""
SCALE_MIN_PX = 8.0
"""The scale of objects that are smaller, such as a single point."""


class Keypoints(ObjectTask):
    """Sets of points, matched by their object keypoint similarity (OKS), and merged by the median of each point."""

    def shapes(self, annotations: Sequence[Annotation]) -> "PointSets":
        return PointSets(annotations)

    def merged_shape(self, annotations: Sequence[Annotation]) -> Annotation:
        """Returns the points that more than half state, each at the medians of its coordinates, with the most frequent visibility."""
        merged = Annotation()
        merged.keypoints.SetInParent()
        for label, stated in _by_label(annotations).items():
            if 2 * len(stated) > len(annotations):
                merged.keypoints.points.append(_merged_point(label, stated))
        return merged

    def is_shape_disputed(self, annotations: Sequence[Annotation]) -> bool:
        """Whether half of the annotators state a point, or half of those who state it say that it is not in the image."""
        for stated in _by_label(annotations).values():
            placed = sum(point.HasField("point") for point in stated)
            if 2 * len(stated) == len(annotations) or (placed and 2 * placed == len(stated)):
                return True
        return False


class PointSets(Shapes):
    """The placed points of N objects.

    The object keypoint similarity of two objects is the mean over their points of exp(-d² / (2 s² k²)): d is the distance of the two
    places of a point, s² the mean of the squared scales of both objects, and k `POINT_CONSTANT`. A point that only one of them places
    counts 0. Two objects without places are equal.
    The squared scale of an object is half of the squared diagonal of the extent of its points, which for a square is its area.

    Lin et al., Microsoft COCO, cocodataset.org/#keypoints-eval, where the scale is the area of the object's mask.
    """

    def __init__(self, annotations: Sequence[Annotation]) -> None:
        self._points = [_placed(annotation) for annotation in annotations]
        tight = np.array([_extent(points) for points in self._points], np.float64).reshape(-1, 4)
        squared = ((tight[:, 2:] - tight[:, :2]) ** 2).sum(axis=1) / 2
        self._scales = np.maximum(squared, SCALE_MIN_PX**2)
        reach = np.sqrt(self._scales)[:, None] / 2
        self.extents = np.hstack([tight[:, :2] - reach, tight[:, 2:] + reach])

    def similarities(self, own: Indices, other: "PointSets", others: Indices) -> NDArray[np.float64]:
        return np.array(
            [self._similarity(a, other, b) for a, b in zip(own.tolist(), others.tolist(), strict=True)], np.float64
        )

    def _similarity(self, own: int, other: "PointSets", index: int) -> float:
        one, two = self._points[own], other._points[index]
        if not one and not two:
            return 1.0
        shared = [label for label in one if label in two]
        if not shared:
            return 0.0
        moved = np.array([one[label] for label in shared]) - np.array([two[label] for label in shared])
        variance = (self._scales[own] + other._scales[index]) / 2 * POINT_CONSTANT**2
        close = np.exp(-(moved**2).sum(axis=1) / (2 * variance))
        return float(close.sum()) / (len(one) + len(two) - len(shared))


def _placed(annotation: Annotation) -> dict[str, tuple[float, float]]:
    """Returns the points in the image, by label."""
    return {
        point.label: (point.point.x_px, point.point.y_px)
        for point in annotation.keypoints.points
        if point.HasField("point") and point.visibility != Visibility.VISIBILITY_ABSENT
    }


def _extent(points: dict[str, tuple[float, float]]) -> tuple[float, float, float, float]:
    """Returns the box around points; without points, one that overlaps all others."""
    if not points:
        return -np.inf, -np.inf, np.inf, np.inf
    xs, ys = zip(*points.values(), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _by_label(annotations: Sequence[Annotation]) -> dict[str, list[Keypoint]]:
    """Returns what the annotators state about each point, in order of first occurrence."""
    stated: dict[str, list[Keypoint]] = {}
    for annotation in annotations:
        for point in annotation.keypoints.points:
            stated.setdefault(point.label, []).append(point)
    return stated


def _merged_point(label: str, stated: Sequence[Keypoint]) -> Keypoint:
    """Returns a point with the most frequent visibility, at the median of the places of those who place it; absent if most say so."""
    placed = [point for point in stated if point.HasField("point") and point.visibility != Visibility.VISIBILITY_ABSENT]
    if 2 * len(placed) <= len(stated):
        return Keypoint(label=label, visibility=Visibility.VISIBILITY_ABSENT)
    counts = Counter(point.visibility for point in placed)
    visibility = min(counts, key=lambda value: (-counts[value], value))
    x, y = np.median([(point.point.x_px, point.point.y_px) for point in placed], axis=0).tolist()
    return Keypoint(label=label, point=PixelPoint(x_px=x, y_px=y), visibility=visibility)
