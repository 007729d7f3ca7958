"""Terms of the figures of objects, by which lists find items with a number or size of objects. Pure.

The values of a figure are divided into ranges. An item has one term for each of its figures, with the number of the range; a comparison is
true for the items of some ranges, of which those at its ends are checked for each item.
"""

from bisect import bisect_right
from typing import Final, NamedTuple

from vesta_common.resources.filters import Comparison

COUNTS: Final = ("object_count", "duplicate_object_count", "predicted_count")
AREAS: Final = ("object_area_min", "object_area_max", "predicted_area_min", "predicted_area_max")
BOUNDS: Final = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96,
    112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048,
    2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192, 9216, 10240, 12288, 14336, 16384, 20480, 24576,
    28672, 32768, 40960, 49152, 57344, 65536, 81920, 98304, 114688, 131072, 163840, 196608, 229376,
    262144, 327680, 393216, 458752, 524288, 655360, 786432, 917504, 1048576, 1310720, 1572864,
    1835008, 2097152, 2621440, 3145728, 3670016, 4194304, 5242880, 6291456, 7340032, 8388608,
    10485760, 12582912, 14680064, 16777216, 20971520, 25165824, 29360128, 33554432, 41943040,
    50331648, 58720256, 67108864, 83886080, 100663296, 117440512, 134217728, 167772160, 201326592,
    234881024,
)  # fmt: skip
"""The lower bounds of the ranges. The function `figure_range` of the database has the same."""
ALL_RANGES: Final = range(len(BOUNDS) + 1)


class FigureRanges(NamedTuple):
    """The ranges that contain the values for which a comparison is true.

    Attributes:
        figure: the field whose terms have the ranges.
        ranges: their numbers. Range i contains the values that reach exactly i of the `BOUNDS`.
        exact: whether the comparison is true for all values of these ranges.
        absent: whether it is true for items without objects too, which have no term.
    """

    figure: str
    ranges: range
    exact: bool
    absent: bool = False

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the items whose figure is in the ranges, in order."""
        return tuple(f"{self.figure}:{number:03}" for number in self.ranges)

    def within(self, other: "FigureRanges") -> "FigureRanges":
        """Returns the ranges that two comparisons of one figure have in common."""
        start, stop = max(self.ranges.start, other.ranges.start), min(self.ranges.stop, other.ranges.stop)
        return FigureRanges(self.figure, range(start, stop), self.exact and other.exact, self.absent and other.absent)


def figure_ranges(comparison: Comparison) -> FigureRanges | None:
    """Returns the ranges of a comparison. None if it is not about a figure, or if it is true for most ranges."""
    field, operator, value = comparison.field, comparison.operator, comparison.value
    figure, _, concept = field.partition(".")
    if figure not in (*COUNTS, *AREAS) or operator == "!=":
        return None
    if figure in COUNTS:
        return _ranges_of_count(field, operator, value)
    if concept:  # only the number of its objects has terms
        return FigureRanges(f"predicted_count.{concept}", ALL_RANGES, False)
    return _ranges(field, operator, value)


def _ranges_of_count(field: str, operator: str, value: int) -> FigureRanges:
    match operator:
        case "=":
            return _ranges_of_count(field, ">=", value).within(_ranges_of_count(field, "<", value + 1))
        case ">":
            return _ranges_of_count(field, ">=", value + 1)
        case "<=":
            return _ranges_of_count(field, "<", value + 1)
        case _:
            is_true_for_zero = value > 0 if operator == "<" else value <= 0
            return _ranges(field, operator, value)._replace(absent=is_true_for_zero)


def _ranges(field: str, operator: str, value: float) -> FigureRanges:
    place = bisect_right(BOUNDS, value)
    if operator == "=":
        return FigureRanges(field, range(place, place + 1), False)
    if operator in (">", ">="):
        return FigureRanges(field, range(place, ALL_RANGES.stop), operator == ">=" and value in BOUNDS)
    at_bound = operator == "<" and value in BOUNDS
    return FigureRanges(field, range(place if at_bound else place + 1), at_bound)
