"""Rules for campaigns: concepts of the dataset's taxonomy, and guidelines. Pure."""

from collections.abc import Sequence

from vesta_common.errors import InvalidArgument, Violation
from vesta_contracts.annotation.v1 import Campaign, GuidelineConcept, Guidelines
from vesta_contracts.datasets.v1 import Taxonomy

_CONCEPTS = "campaign.concepts"
_NAMED_MAX = 5


def asked_concepts(requested: Sequence[str], taxonomy: Taxonomy) -> list[str]:
    """Returns the concepts that annotators choose from: those requested, or all that are not retired.

    Raises:
        InvalidArgument: CONCEPT_UNKNOWN, the taxonomy does not contain a requested concept.
    """
    if not requested:
        return [concept.id for concept in taxonomy.concepts if not concept.retired]
    known = {concept.id for concept in taxonomy.concepts}
    unknown = [concept for concept in requested if concept not in known]
    if unknown:
        named = ", ".join(unknown[:_NAMED_MAX]) + (" and more" if len(unknown) > _NAMED_MAX else "")
        what = f"has {named}, not in {taxonomy.name}; add them to the taxonomy first"
        raise InvalidArgument(f"{_CONCEPTS} {what}", reason="CONCEPT_UNKNOWN", violations=[Violation(_CONCEPTS, what)])
    return list(requested)


def guidelines(campaign: Campaign, taxonomy: Taxonomy) -> Guidelines:
    """Returns the guidelines for the campaign's annotators. Leaves out concepts that the taxonomy no longer contains."""
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
            for concept in (known[name] for name in campaign.concepts if name in known)
        ],
    )
