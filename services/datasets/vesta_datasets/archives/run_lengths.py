"""The compressed text of COCO's run lengths (`rleToString` in cocoapi's maskApi.c). Pure."""

from typing import Final

_VALUE_BITS_MAX: Final = 40


class RunsError(ValueError):
    """The text is not valid."""


def uncompressed(text: str) -> list[int]:
    """Returns the run lengths. From the third on, the text has the difference from the run two before.

    Each number consists of groups of five bits, the lowest first; bit 6 of a character says that another one follows, bit 5 of the last one
    is the sign.

    Raises:
        RunsError: the text has other characters, or ends within a number.
    """
    runs = list[int]()
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > _VALUE_BITS_MAX:
            raise RunsError(f"{character!r} does not continue the run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise RunsError("the run lengths end within a number")
    return runs
