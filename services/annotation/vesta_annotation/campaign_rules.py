"""What a campaign may ask of its experts: concepts of its dataset's taxonomy, and as many labels as the dataset holds. Pure."""

from collections.abc import Sequence

from vesta_common.errors import InvalidArgument, Violation
from vesta_contracts.annotation.v1 import Campaign, GuidelineConcept, Guidelines
from vesta_contracts.datasets.v1 import Dataset, Taxonomy

_CONCEPTS = "campaign.concepts"
_NAMED_MAX = 5


def asked_concepts(wanted: Sequence[str], taxonomy: Taxonomy) -> list[str]:
    """The concepts that experts are offered: those that are wanted, or all that are not retired.

    Raises:
        InvalidArgument: CONCEPT_UNKNOWN, some are not in the taxonomy.
    """
    if not wanted:
        return [concept.id for concept in taxonomy.concepts if not concept.retired]
    known = {concept.id for concept in taxonomy.concepts}
    unknown = [concept for concept in wanted if concept not in known]
    if unknown:
        named = ", ".join(unknown[:_NAMED_MAX]) + (" and more" if len(unknown) > _NAMED_MAX else "")
        what = f"names {named}, which {taxonomy.name} does not hold; add them to it first"
        raise InvalidArgument(f"{_CONCEPTS} {what}", reason="CONCEPT_UNKNOWN", violations=[Violation(_CONCEPTS, what)])
    return list(wanted)


def guidelines(campaign: Campaign, taxonomy: Taxonomy) -> Guidelines:
    """What experts of a campaign read. What the taxonomy does not hold any more is not offered."""
    known = {concept.id: concept for concept in taxonomy.concepts}
    return Guidelines(
        instructions=campaign.instructions,
        concepts=[
            GuidelineConcept(
                id=concept.id,
                display_name=concept.display_name,
                description=concept.description,
                keypoints=concept.keypoints,
            )
            for concept in (known[asked] for asked in campaign.concepts if asked in known)
        ],
    )


def check_label_count(campaign: Campaign, dataset: Dataset) -> None:
    """Lets a campaign through that asks for several labels only where the dataset holds several.

    Raises:
        InvalidArgument: LABELS_NOT_SINGLE.
    """
    if campaign.multi_label and not dataset.multi_label:
        what = f"asks for several labels of an image, and {dataset.name} holds one; leave it false"
        raise InvalidArgument(
            f"campaign.multi_label {what}",
            reason="LABELS_NOT_SINGLE",
            violations=[Violation("campaign.multi_label", what)],
        )
