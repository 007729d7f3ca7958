"""The consensus of answers that agree if they are equal."""

import random

import pytest
from annotation_builders import a_box, an_answer, label
from hypothesis import given
from hypothesis import strategies as st
from vesta_annotation.task_types.image_labels import ImageLabels, answer_key
from vesta_contracts.annotation.v1 import Submission


def majority(answers: list[Submission]) -> list[str]:
    """Returns the annotators who agree."""
    consensus = ImageLabels().consensus(answers)
    return [] if consensus is None else list(consensus.annotators)


concepts = st.lists(st.sampled_from(["van", "car", "bus"]), max_size=3)
rounds = st.lists(concepts, min_size=1, max_size=9).map(
    lambda given: [an_answer(f"projects/acme/members/m{index}", *said) for index, said in enumerate(given)]
)


@pytest.mark.parametrize(
    ("said", "agreeing"),
    [
        (["van"], "a"),
        (["van", "van"], "ab"),
        (["van", "car"], ""),
        (["van", "car", "van"], "ac"),
        (["van", "car", "bus"], ""),
        (["van", "van", "car", "car"], ""),
        (["van", "van", "van", "car"], "abc"),
    ],
)
def test_a_consensus_requires_more_than_half_of_the_answers(said: list[str], agreeing: str) -> None:
    answers = [an_answer(who, concept) for who, concept in zip("abcd", said, strict=False)]
    assert "".join(majority(answers)) == agreeing


def test_the_order_and_repetition_of_labels_do_not_matter() -> None:
    assert answer_key([label("van"), label("red")]) == answer_key([label("red"), label("van"), label("red")])


def test_none_of_the_concepts_is_an_answer_that_experts_can_agree_on() -> None:
    assert len(majority([an_answer("a"), an_answer("b")])) == 2
    assert not majority([an_answer("a"), an_answer("b", "van")])


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (a_box(), True),
        (a_box(score=0.5), True),
        (a_box("car"), False),
        (a_box(attributes={"occluded": "true"}), False),
        (label("van"), False),
    ],
)
def test_shapes_are_compared_without_their_score(other: object, equal: bool) -> None:
    assert (answer_key([a_box()]) == answer_key([other])) is equal


def test_a_single_answer_is_the_consensus() -> None:
    lone = Submission(annotator="a", annotations=[a_box(), a_box("car", score=0.1)])
    consensus = ImageLabels().consensus([lone])
    assert consensus is not None
    assert (list(consensus.annotations), consensus.annotators) == (list(lone.annotations), ["a"])


@given(rounds)
def test_a_majority_is_more_than_half_of_equal_answers(answers: list[Submission]) -> None:
    agreeing = majority(answers)
    assert not agreeing or 2 * len(agreeing) > len(answers)
    assert len({answer_key(answer.annotations) for answer in answers if answer.annotator in agreeing}) <= 1


@given(rounds, st.randoms(use_true_random=False))
def test_a_majority_does_not_depend_on_the_order_of_answers(answers: list[Submission], draw: random.Random) -> None:
    shuffled = draw.sample(answers, len(answers))
    assert set(majority(shuffled)) == set(majority(answers))
