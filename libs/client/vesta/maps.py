"""Segmentation maps of predictions: the share of each concept, and its pixels, for printing and drawing."""

from collections.abc import Iterable

from vesta_contracts.common.v1 import SegmentationMap


def area_shares(segmentation: SegmentationMap) -> dict[str, float]:
    """Returns the share of the pixels of each concept that occurs, in [0, 1], largest first."""
    counts = [0] * (len(segmentation.concepts) + 1)
    for length, number in zip(segmentation.runs_px, segmentation.concept_numbers, strict=True):
        counts[number] += length
    shares = {concept: count / sum(counts) for concept, count in zip(segmentation.concepts, counts[1:], strict=True)}
    return dict(sorted(shares.items(), key=lambda entry: -entry[1]))


def map_rows(segmentation: SegmentationMap) -> Iterable[tuple[str, int, int, int]]:
    """Yields the pixels with a concept, as concept, row, first column and the column after the last."""
    position = 0
    for length, number in zip(segmentation.runs_px, segmentation.concept_numbers, strict=True):
        start, position = position, position + length
        while number and start < position:
            row, column = divmod(start, segmentation.width_px)
            end = min(position, (row + 1) * segmentation.width_px)
            yield segmentation.concepts[number - 1], row, column, column + end - start
            start = end
