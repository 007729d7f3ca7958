"""What several answers to one task amount to. Pure."""

import hashlib
from collections.abc import Sequence

from vesta_contracts.annotation.v1 import Submission
from vesta_contracts.common.v1 import Annotation


def answer_key(annotations: Sequence[Annotation]) -> bytes:
    """Equal for answers that say the same: a SHA-256 of the set of annotations, their scores aside."""
    said = set()
    for annotation in annotations:
        plain = Annotation()
        plain.CopyFrom(annotation)
        plain.ClearField("score")
        said.add(hashlib.sha256(plain.SerializeToString(deterministic=True)).digest())
    return hashlib.sha256(b"".join(sorted(said))).digest()


def find_majority(answers: Sequence[Submission]) -> list[Submission]:
    """Those answers that say what more than half of the experts say, in the order given; empty where no such half is."""
    keys = [answer_key(answer.annotations) for answer in answers]
    return [answer for answer, key in zip(answers, keys, strict=True) if 2 * keys.count(key) > len(keys)]
