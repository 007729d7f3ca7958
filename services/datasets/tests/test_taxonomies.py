"""A taxonomy is a forest of different concepts, and has all that items bear."""

import pytest
from vesta_common.errors import InvalidArgument
from vesta_contracts.datasets.v1 import Concept, Taxonomy
from vesta_datasets.taxonomies import check_holds, check_taxonomy, find_below_itself


def of(**parents: str) -> Taxonomy:
    return Taxonomy(concepts=[Concept(id=concept, parent=parent) for concept, parent in parents.items()])


def test_concepts_may_lie_below_one_another_in_any_order() -> None:
    check_taxonomy(of())
    check_taxonomy(of(van="car", car="vehicle", vehicle="", bus="vehicle"))


@pytest.mark.parametrize(
    ("taxonomy", "what"),
    [
        (Taxonomy(concepts=[Concept(id="van"), Concept(id="car"), Concept(id="van")]), "van appears twice"),
        (of(van="vehicle"), "the parent vehicle is no concept"),
        (of(van="van"), "van lies below itself"),
        (of(bus="car", van="car", car="van"), "car lies below itself"),
    ],
)
def test_what_is_no_forest_of_concepts_is_refused(taxonomy: Taxonomy, what: str) -> None:
    with pytest.raises(InvalidArgument, match=what) as refused:
        check_taxonomy(taxonomy)
    assert refused.value.reason == "TAXONOMY_INVALID"


def test_a_long_line_of_parents_is_walked_once() -> None:
    count = 10_000
    parents = {str(number): str(number + 1) for number in range(count)}
    assert find_below_itself({**parents, str(count): ""}) == ""
    assert find_below_itself({**parents, str(count): "0"}) == "0"


def test_a_taxonomy_holds_all_that_items_bear() -> None:
    check_holds(of(van="", car=""), {"van"}, "taxonomy.concepts")
    with pytest.raises(InvalidArgument, match="items bear bus, van;") as refused:
        check_holds(of(car=""), {"van", "bus", "car"}, "taxonomy.concepts")
    assert refused.value.reason == "CONCEPT_IN_USE"
