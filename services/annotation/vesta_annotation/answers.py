"""Which annotations a campaign takes for an answer. Pure."""

from collections.abc import Sequence

from vesta_common.errors import InvalidArgument, Violation
from vesta_common.shapes import find_flaw
from vesta_contracts.annotation.v1 import Campaign
from vesta_contracts.common.v1 import Annotation

ANSWER_BYTES_MAX = 900_000  # the event that tells of it may have 1,000,000, with the names of those who agreed


def check_answer(annotations: Sequence[Annotation], campaign: Campaign, field: str) -> None:
    """Accepts what the campaign asks for. No annotation at all is an answer too: "none of the concepts".

    Args:
        field: where the annotations lie in the request.

    Raises:
        InvalidArgument: says which annotation is wrong, and what would be right.
    """
    size_bytes = sum(annotation.ByteSize() for annotation in annotations)
    if size_bytes > ANSWER_BYTES_MAX:
        what = f"has {size_bytes} bytes of {ANSWER_BYTES_MAX}; draw with fewer points, or masks with longer runs"
        raise _refusal(field, what, "SHAPE_INVALID")
    asked = set(campaign.concepts)
    for index, annotation in enumerate(annotations):
        where = f"{field}[{index}]"
        if annotation.concept not in asked:
            raise _refusal(
                where, f"has {annotation.concept!r}, which {campaign.name} does not ask for", "CONCEPT_NOT_ASKED"
            )
        flaw = find_flaw(annotation)
        if flaw:
            raise _refusal(where, flaw, "SHAPE_INVALID")
    labels = [annotation.concept for annotation in annotations if annotation.HasField("image_label")]
    if len(labels) > 1 and not campaign.multi_label:
        raise _refusal(field, f"has the labels {', '.join(labels)}; {campaign.name} asks for one", "LABEL_NOT_SINGLE")


def _refusal(field: str, what: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {what}", reason=reason, violations=[Violation(field, what)])
