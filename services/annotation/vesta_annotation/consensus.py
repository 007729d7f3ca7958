"""Finds the consensus of several answers to one task. Pure."""

import hashlib
from collections.abc import Sequence

from vesta_contracts.annotation.v1 import Submission
from vesta_contracts.common.v1 import Annotation


def answer_key(annotations: Sequence[Annotation]) -> bytes:
    """Returns a key that is equal for equal answers: a SHA-256 of the set of annotations without their scores."""
    keys = set()
    for annotation in annotations:
        plain = Annotation()
        plain.CopyFrom(annotation)
        plain.ClearField("score")
        keys.add(hashlib.sha256(plain.SerializeToString(deterministic=True)).digest())
    return hashlib.sha256(b"".join(sorted(keys))).digest()


def find_majority(answers: Sequence[Submission]) -> list[Submission]:
    """Returns the answers that more than half of the annotators gave, in the given order; empty without such a majority."""
    keys = [answer_key(answer.annotations) for answer in answers]
    return [answer for answer, key in zip(answers, keys, strict=True) if 2 * keys.count(key) > len(keys)]
