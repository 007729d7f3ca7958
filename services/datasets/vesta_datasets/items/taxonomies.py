"""Validates taxonomies: concepts and keypoints are unique, and all concepts that items use are present. Pure functions."""

from collections import Counter
from collections.abc import Collection, Iterable

from vesta_common.errors import InvalidArgument, Violation
from vesta_contracts.datasets.v1 import Taxonomy


def check_taxonomy(taxonomy: Taxonomy) -> None:
    """Checks that concept ids are unique, and that the keypoints of each concept are unique.

    Raises:
        InvalidArgument: TAXONOMY_INVALID; the message names the repeated concepts or keypoints.
    """
    what = ""
    if twice := _repeated(concept.id for concept in taxonomy.concepts):
        what = f"{', '.join(twice)} is not unique"
    for concept in taxonomy.concepts:
        if twice := _repeated(concept.keypoints):
            what = what or f"the keypoint {', '.join(twice)} of {concept.id} is not unique"
    if what:
        raise InvalidArgument(
            f"taxonomy.concepts: {what}", reason="TAXONOMY_INVALID", violations=[Violation("taxonomy.concepts", what)]
        )


def check_concepts_in_use(taxonomy: Taxonomy, before: Taxonomy, used: Collection[str], field: str) -> None:
    """Checks that a taxonomy has all concepts that items use, with all their keypoints.

    Args:
        before: the previous taxonomy of the items.
        used: ids of the concepts that items use.
        field: the request field that violations name.

    Raises:
        InvalidArgument: CONCEPT_IN_USE; the message names the missing concepts or keypoints.
    """
    keypoints = {concept.id: set(concept.keypoints) for concept in taxonomy.concepts}
    if gone := set(used) - keypoints.keys():
        raise InvalidArgument(
            f"items have annotations with {', '.join(sorted(gone))}; keep these concepts in the "
            "taxonomy, or retire them",
            reason="CONCEPT_IN_USE",
            violations=[Violation(field, "is missing a concept that items have")],
        )
    for concept in before.concepts:
        if concept.id in used and (lost := set(concept.keypoints) - keypoints[concept.id]):
            raise InvalidArgument(
                f"items have the concept {concept.id}; keep its keypoints {', '.join(sorted(lost))}",
                reason="CONCEPT_IN_USE",
                violations=[Violation(field, "is missing a keypoint of a concept that items have")],
            )


def _repeated(ids: Iterable[str]) -> list[str]:
    return sorted(concept_id for concept_id, count in Counter(ids).items() if count > 1)
