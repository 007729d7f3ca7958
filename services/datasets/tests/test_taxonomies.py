"""Concepts of a taxonomy are unique, and include all concepts that items have."""

import pytest
from vesta_common.errors import InvalidArgument
from vesta_contracts.datasets.v1 import Concept, Taxonomy
from vesta_datasets.items.taxonomies import check_concepts_in_use, check_taxonomy


def of(**keypoints: list[str]) -> Taxonomy:
    return Taxonomy(concepts=[Concept(id=concept, keypoints=names) for concept, names in keypoints.items()])


def test_keypoint_names_may_repeat_across_concepts() -> None:
    check_taxonomy(of())
    check_taxonomy(of(van=["door", "wheel"], car=["door"], bus=[]))


@pytest.mark.parametrize(
    ("taxonomy", "what"),
    [
        (Taxonomy(concepts=[Concept(id="van"), Concept(id="car"), Concept(id="van")]), "van is not unique"),
        (of(bus=[], van=["door", "wheel", "door"]), "the keypoint door of van is not unique"),
    ],
)
def test_duplicate_names_are_rejected(taxonomy: Taxonomy, what: str) -> None:
    with pytest.raises(InvalidArgument, match=what) as refused:
        check_taxonomy(taxonomy)
    assert refused.value.reason == "TAXONOMY_INVALID"


def test_a_taxonomy_keeps_all_concepts_of_items() -> None:
    before = of(van=[], car=[], bus=[])
    check_concepts_in_use(of(van=[], car=[]), before, {"van"}, "taxonomy.concepts")
    with pytest.raises(InvalidArgument, match="items have annotations with bus, van;") as refused:
        check_concepts_in_use(of(car=[]), before, {"van", "bus", "car"}, "taxonomy.concepts")
    assert refused.value.reason == "CONCEPT_IN_USE"


def test_a_concept_that_items_have_keeps_its_keypoints() -> None:
    before = of(van=["door", "wheel"], car=["door"])
    check_concepts_in_use(of(van=["wheel", "door", "roof"], car=[]), before, {"van"}, "taxonomy.concepts")
    with pytest.raises(InvalidArgument, match="keep its keypoints wheel") as refused:
        check_concepts_in_use(of(van=["door"], car=[]), before, {"van"}, "taxonomy.concepts")
    assert refused.value.reason == "CONCEPT_IN_USE"
