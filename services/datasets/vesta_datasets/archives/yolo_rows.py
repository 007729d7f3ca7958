"""The rows of a YOLO archive: a class number, and a box, the points of a polygon, or a box with keypoints. Pure.

The format: https://docs.ultralytics.com/datasets/. Coordinates are shares of the width and height of the image. Rows have keypoints if
data.yaml has `kpt_shape`: their number, and whether each has a visibility (0 not labelled, 1 occluded, 2 visible). Their names are those of
`kpt_names` for the class; without names, their numbers from 0. A concept may have fewer keypoints than a row has places.

Rotated boxes are written as the polygon of their corners. They are read as rotated boxes if data.yaml has `task: obb`, which this service
writes, and as polygons otherwise.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vesta_contracts.common.v1 import Annotation, Keypoint, Keypoints, PixelBox, PixelPoint, Polygon, Ring, Visibility

from vesta_datasets.archives.layout import UnreadableArchiveError

ROTATED_TASK: Final = "obb"
"""The `task` of data.yaml of an archive whose polygons are the corners of rotated boxes."""
_TOLERANCE: Final = 1e-6
_POINTS_MAX: Final = 1000
_VISIBILITIES: Final = {1: Visibility.VISIBILITY_OCCLUDED, 2: Visibility.VISIBILITY_VISIBLE}
_WITHOUT_VISIBILITY, _WITH_VISIBILITY = 2, 3


class FlawedRowError(ValueError):
    """A row cannot be converted. The message begins with its place."""


@dataclass(frozen=True)
class KeypointLayout:
    """The keypoints of rows.

    Attributes:
        count: of keypoints in each row.
        size: the number of values of each: 2, or 3 with its visibility.
        names: of the keypoints, by class number.
    """

    count: int
    size: int
    names: Mapping[int, Sequence[str]]

    @property
    def value_count(self) -> int:
        """The number of values of a row, after its class number."""
        return 4 + self.count * self.size


def class_names(config: Mapping[str, Any], where: str) -> dict[int, str]:
    """Returns the names of the classes in data.yaml, by number. Raises UnreadableArchiveError."""
    said = config["names"]
    pairs = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    names = {int(key): name for key, name in pairs if str(key).isdecimal() and isinstance(name, str) and name}
    if not names or len(names) != len(said):
        raise UnreadableArchiveError(f"{where}: names must be a list of names, or the name of each class number")
    return names


def keypoint_layout(config: Mapping[str, Any], classes: Collection[int], where: str) -> KeypointLayout | None:
    """Returns the keypoints that data.yaml declares; None if it declares none.

    Raises:
        UnreadableArchiveError: the declaration is invalid.
    """
    said = config.get("kpt_shape")
    if not said:
        return None
    numbers = [int(one) for one in said if isinstance(one, str) and one.isdecimal()] if isinstance(said, list) else []
    if len(numbers) != 2 or not 1 <= numbers[0] <= _POINTS_MAX or numbers[1] not in (2, 3):
        raise UnreadableArchiveError(
            f"{where}: kpt_shape must be the number of keypoints, at most {_POINTS_MAX}, and the number of values of each, 2 or 3"
        )
    count, size = numbers
    named = config.get("kpt_names") or {}
    by_class = {str(number): one for number, one in enumerate(named)} if isinstance(named, list) else named
    if not isinstance(by_class, dict):
        raise UnreadableArchiveError(f"{where}: kpt_names must be the list of keypoints of each class number")
    names = {}
    for number in classes:
        own = by_class.get(str(number), [str(place) for place in range(count)])
        is_list = isinstance(own, list) and all(isinstance(name, str) and name for name in own)
        if not is_list or len(own) > count or len(set(own)) != len(own):
            raise UnreadableArchiveError(
                f"{where}: kpt_names of the class {number} must be a list of at most {count} different names"
            )
        names[number] = own
    return KeypointLayout(count, size, names)


class RowReader:
    """Reads the rows of an archive.

    Args:
        names: of the classes, by number.
        points: the keypoints of rows; None if they have none.
        shapes: that the importing dataset allows. A row with keypoints becomes a box if the dataset allows boxes and no keypoints.
    """

    def __init__(self, names: Mapping[int, str], points: KeypointLayout | None, shapes: Collection[str]) -> None:
        self._names = names
        self._points = points
        self._reads_points = "keypoints" in shapes or "box" not in shapes

    def annotation(self, values: Sequence[str], where: str) -> Annotation:
        """Returns a row as an annotation whose coordinates are shares of the width and height of the image.

        Args:
            values: the words of the row, at least one.
            where: its place, for messages.

        Raises:
            FlawedRowError: the row is invalid.
            UnreadableArchiveError: it has a class that the archive does not name.
        """
        if not values[0].isdecimal():
            raise FlawedRowError(f"{where} does not begin with a class number, but with {values[0]!r}")
        number, names = int(values[0]), self._names
        if number not in names:
            raise UnreadableArchiveError(
                f"{where} has the class {values[0]}, but the archive names the classes {min(names)} to {max(names)}"
            )
        try:
            shares = [float(value) for value in values[1:]]
        except ValueError:
            raise FlawedRowError(f"{where} has a value that is not a number") from None
        annotation = Annotation(concept=names[number])
        if self._points and len(shares) == self._points.value_count:
            if self._reads_points:
                annotation.keypoints.CopyFrom(_keypoints(shares[4:], number, self._points, where))
                return annotation
            shares = shares[:4]
        is_polygon = len(shares) >= 6 and len(shares) % 2 == 0 and not self._points
        if len(shares) != 4 and not is_polygon:
            raise FlawedRowError(f"{where} has {len(values)} values; {self._lengths()}. Scores are not read")
        _check_shares(shares, where)
        if is_polygon:
            points = [PixelPoint(x_px=x, y_px=y) for x, y in zip(shares[::2], shares[1::2], strict=True)]
            annotation.polygon.CopyFrom(Polygon(outline=Ring(points=points)))
        else:
            annotation.box.CopyFrom(_box(shares))
        return annotation

    def _lengths(self) -> str:
        if self._points:
            return f"a box has 5, and {self._points.value_count + 1} with the keypoints of kpt_shape in data.yaml"
        return "a box has 5, a polygon 7 or more in pairs; rows with keypoints need kpt_shape in data.yaml"


def _box(shares: Sequence[float]) -> PixelBox:
    x, y, width, height = shares
    return PixelBox(x_min_px=x - width / 2, y_min_px=y - height / 2, x_max_px=x + width / 2, y_max_px=y + height / 2)


def _keypoints(values: Sequence[float], number: int, layout: KeypointLayout, where: str) -> Keypoints:
    points = []
    for place in range(layout.count):
        x, y, *rest = values[place * layout.size : (place + 1) * layout.size]
        visible = rest[0] if rest else float(x != 0 or y != 0) * 2
        if visible not in (0, 1, 2):
            raise FlawedRowError(f"{where} has a keypoint with the visibility {visible:g}; use 0, 1 or 2")
        if not visible:
            continue
        _check_shares((x, y), where)
        if place >= len(layout.names[number]):
            raise FlawedRowError(f"{where} has {place + 1} keypoints, but its class has {len(layout.names[number])}")
        label = layout.names[number][place]
        points.append(Keypoint(label=label, point=PixelPoint(x_px=x, y_px=y), visibility=_VISIBILITIES[int(visible)]))
    return Keypoints(points=points)


def _check_shares(shares: Sequence[float], where: str) -> None:
    if not all(math.isfinite(share) and -_TOLERANCE <= share <= 1 + _TOLERANCE for share in shares):
        raise FlawedRowError(f"{where} has a coordinate outside of [0, 1]; coordinates are shares of width and height")
