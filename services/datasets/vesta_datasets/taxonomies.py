"""What a taxonomy must be: concepts of different names below one another, and among them all that items bear. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping

from vesta_common.errors import InvalidArgument, Violation
from vesta_contracts.datasets.v1 import Taxonomy


def check_taxonomy(taxonomy: Taxonomy) -> None:
    """Accepts concepts whose ids are unique, and whose parents are there and lead up to one that has none.

    Raises:
        InvalidArgument: TAXONOMY_INVALID, names the concepts.
    """
    counts = Counter(concept.id for concept in taxonomy.concepts)
    parents = {concept.id: concept.parent for concept in taxonomy.concepts}
    strangers = {parent for parent in parents.values() if parent} - parents.keys()
    if twice := sorted(concept for concept, count in counts.items() if count > 1):
        what = f"{', '.join(twice)} appears twice"
    elif strangers:
        what = f"the parent {', '.join(sorted(strangers))} is no concept"
    elif lost := find_below_itself(parents):
        what = f"{lost} lies below itself"
    else:
        return
    raise InvalidArgument(
        f"taxonomy.concepts: {what}", reason="TAXONOMY_INVALID", violations=[Violation("taxonomy.concepts", what)]
    )


def check_holds(taxonomy: Taxonomy, borne: Collection[str], field: str) -> None:
    """Accepts a taxonomy that has all concepts that items bear.

    Args:
        field: of the request, to name in a refusal.

    Raises:
        InvalidArgument: CONCEPT_IN_USE, names those that it lacks.
    """
    gone = set(borne) - {concept.id for concept in taxonomy.concepts}
    if gone:
        raise InvalidArgument(
            f"items bear {', '.join(sorted(gone))}; keep such concepts in the taxonomy, retired where they are of no more use",
            reason="CONCEPT_IN_USE",
            violations=[Violation(field, "lacks a concept that items bear")],
        )


def find_below_itself(parents: Mapping[str, str]) -> str:
    """A concept that its parents lead back to; empty where there is none.

    Args:
        parents: the parent of each concept, empty where it has none.
    """
    sound: set[str] = set()
    for concept in parents:
        path: set[str] = set()
        one = concept
        while one and one not in sound:
            if one in path:
                return one
            path.add(one)
            one = parents.get(one, "")
        sound |= path
    return ""
