"""Which annotations a campaign takes."""

import pytest
from annotation_builders import a_box, label
from vesta_annotation.answers import ANSWER_BYTES_MAX, check_answer
from vesta_common.errors import InvalidArgument
from vesta_contracts.annotation.v1 import Campaign
from vesta_contracts.common.v1 import Annotation, Mask, PixelBox

VANS = Campaign(name="projects/acme/campaigns/vans", concepts=["van", "car"])
SOMETIMES_SEVERAL = Campaign(concepts=["van", "car"], multi_label=True)
WITHOUT_CONCEPTS = Campaign(name="projects/acme/campaigns/bare")

FLAT = PixelBox(x_max_px=10)


@pytest.mark.parametrize(
    ("campaign", "answer"),
    [
        (VANS, []),
        (VANS, [label("van")]),
        (VANS, [a_box("van"), a_box("van"), a_box("car")]),
        (VANS, [label("van"), a_box("car")]),
        (SOMETIMES_SEVERAL, [label("van"), label("car")]),
    ],
)
def test_what_is_asked_for_is_taken(campaign: Campaign, answer: list[Annotation]) -> None:
    check_answer(answer, campaign, "answer")


def test_a_campaign_whose_taxonomy_has_no_living_concept_takes_no_concept_and_still_none_of_them() -> None:
    check_answer([], WITHOUT_CONCEPTS, "answer")
    with pytest.raises(InvalidArgument) as raised:
        check_answer([label("zeppelin")], WITHOUT_CONCEPTS, "answer")
    assert raised.value.reason == "CONCEPT_NOT_ASKED"


def test_an_answer_that_no_event_could_carry_is_refused_before_it_is_kept() -> None:
    fine = Annotation(concept="van", mask=Mask(height_px=2000, width_px=1000, runs_px=[2] * 1_000_000))
    with pytest.raises(InvalidArgument, match=str(ANSWER_BYTES_MAX)):
        check_answer([fine], VANS, "answer")


@pytest.mark.parametrize(
    ("answer", "reason", "field"),
    [
        ([label("van"), label("bus")], "CONCEPT_NOT_ASKED", "answer[1]"),
        ([label("van"), label("car")], "LABEL_NOT_SINGLE", "answer"),
        ([label("van"), label("van")], "LABEL_NOT_SINGLE", "answer"),
        ([Annotation(concept="van")], "SHAPE_INVALID", "answer[0]"),
        ([a_box(), Annotation(concept="van", box=FLAT)], "SHAPE_INVALID", "answer[1]"),
    ],
)
def test_what_is_not_asked_for_is_refused_by_its_field(answer: list[Annotation], reason: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_answer(answer, VANS, "answer")
    assert raised.value.reason == reason
    assert [violation.field for violation in raised.value.violations] == [field]
