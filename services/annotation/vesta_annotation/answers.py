"""Which annotations a campaign takes for an answer. Pure."""

import math
from collections.abc import Sequence

from google.protobuf.message import Message
from vesta_common.errors import InvalidArgument, Violation
from vesta_contracts.annotation.v1 import Campaign
from vesta_contracts.common.v1 import Annotation


def check_answer(annotations: Sequence[Annotation], campaign: Campaign, field: str) -> None:
    """Accepts an answer that the campaign asks for. Whether shapes lie on the image is for the dataset to say.

    Raises:
        InvalidArgument: says which annotation is wrong, and what would be right.
    """
    allowed = set(campaign.concepts)
    for index, annotation in enumerate(annotations):
        where = f"{field}[{index}]"
        if allowed and annotation.concept not in allowed:
            raise _refusal(where, f"{annotation.concept!r} is not asked for here", "CONCEPT_NOT_ASKED")
        if annotation.WhichOneof("shape") is None:
            raise _refusal(where, "has no shape; for the image as a whole set image_label", "SHAPE_MISSING")
        if not _is_finite(annotation):
            raise _refusal(where, "has a coordinate that is not finite", "SHAPE_NOT_FINITE")
    whole = {annotation.concept for annotation in annotations if annotation.HasField("image_label")}
    if not campaign.multi_label and len(whole) > 1:
        raise _refusal(field, "has several labels where one is asked", "LABEL_NOT_SINGLE")


def _is_finite(message: Message) -> bool:
    """Whether every number in a message, however deep, is finite."""
    for field, value in message.ListFields():
        values = (
            value
            if field.is_repeated and not (field.message_type and field.message_type.GetOptions().map_entry)
            else [value]
        )
        for one in values:
            if isinstance(one, Message) and not _is_finite(one):
                return False
            if isinstance(one, float) and not math.isfinite(one):
                return False
    return True


def _refusal(field: str, what: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {what}", reason=reason, violations=[Violation(field, what)])
