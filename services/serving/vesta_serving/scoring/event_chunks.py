"""Splits the predictions for many items into chunks that fit into one event. Pure."""

from collections.abc import Iterable

from vesta_contracts.serving.v1 import ItemPrediction

ENTRY_BYTES_MAX = 6  # the tag and length that precede each entry of a repeated field
ENTRY_BYTES_MIN = 2


def cut(predictions: Iterable[ItemPrediction], items_max: int, bytes_max: int) -> list[list[ItemPrediction]]:
    """Splits predictions in order into chunks with a maximum number of items and bytes.

    A prediction that exceeds a chunk by itself is reduced, see `fitted`.
    """
    parts: list[list[ItemPrediction]] = []
    room = 0
    for prediction in predictions:
        entry = fitted(prediction, bytes_max - ENTRY_BYTES_MAX)
        size_bytes = entry.ByteSize() + ENTRY_BYTES_MAX
        if not parts or len(parts[-1]) == items_max or size_bytes > room:
            parts.append([])
            room = bytes_max
        parts[-1].append(entry)
        room -= size_bytes
    return parts


def fitted(prediction: ItemPrediction, bytes_max: int) -> ItemPrediction:
    """Returns the prediction with fewer scores if it is too large: keeps the predicted ones, then the best of the others.

    Its uncertainty and margin do not change.
    """
    excess = prediction.ByteSize() - bytes_max
    if excess <= 0:
        return prediction
    scores = prediction.prediction.scores
    by_worth = sorted(range(len(scores)), key=lambda index: (scores[index].predicted, -index))
    left_out: set[int] = set()
    for index in by_worth:
        if excess <= 0:
            break
        left_out.add(index)
        excess -= scores[index].ByteSize() + ENTRY_BYTES_MIN
    best = ItemPrediction()
    best.CopyFrom(prediction)
    del best.prediction.scores[:]
    best.prediction.scores.extend(score for index, score in enumerate(scores) if index not in left_out)
    return best
