"""Cuts what a model says of many items into parts that fit into an event. Pure."""

from collections.abc import Iterable

from vesta_contracts.serving.v1 import ItemPrediction

ENTRY_BYTES_MAX = 6  # a tag and a length, before each entry of a repeated field
ENTRY_BYTES_MIN = 2


def cut(predictions: Iterable[ItemPrediction], items_max: int, bytes_max: int) -> list[list[ItemPrediction]]:
    """The same predictions in the same order, in parts of at most so many items and bytes.

    A prediction that is too large for a part by itself says less, see `fitted`.
    """
    parts: list[list[ItemPrediction]] = []
    room = 0
    for prediction in predictions:
        kept = fitted(prediction, bytes_max - ENTRY_BYTES_MAX)
        size_bytes = kept.ByteSize() + ENTRY_BYTES_MAX
        if not parts or len(parts[-1]) == items_max or size_bytes > room:
            parts.append([])
            room = bytes_max
        parts[-1].append(kept)
        room -= size_bytes
    return parts


def fitted(prediction: ItemPrediction, bytes_max: int) -> ItemPrediction:
    """The prediction, with only its best scores where all of them are too many; whether it is uncertain, and its margin, stay."""
    excess = prediction.ByteSize() - bytes_max
    if excess <= 0:
        return prediction
    scores = prediction.scores.scores
    keep = len(scores)
    while excess > 0 and keep:
        keep -= 1
        excess -= scores[keep].ByteSize() + ENTRY_BYTES_MIN
    best = ItemPrediction()
    best.CopyFrom(prediction)
    del best.scores.scores[keep:]
    return best
