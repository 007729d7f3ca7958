"""The rules of annotation, without a database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_annotation.agreement import Answer, measure_agreement
from vesta_annotation.answers import check_answer
from vesta_annotation.consensus import find_consensus
from vesta_annotation.review_sampling import is_sampled
from vesta_common.errors import InvalidArgument
from vesta_contracts.annotation.v1 import Campaign, Submission
from vesta_contracts.common.v1 import Annotation, ImageLabel, PixelBox


def says(concept: str, score: float | None = None) -> Annotation:
    return Annotation(concept=concept, image_label=ImageLabel(), score=score)


def given_answers(letters: str) -> list[Submission]:
    return [Submission(annotations=[says(letter)], annotator=f"m{index}") for index, letter in enumerate(letters)]


@pytest.mark.parametrize(
    ("letters", "majority", "unanimous"),
    [
        ("a", "a", True),
        ("aa", "a", True),
        ("aab", "a", False),
        ("ab", None, False),
        ("aabb", None, False),
        ("abc", None, False),
    ],
)
def test_the_majority_decides_and_a_tie_does_not(letters: str, majority: str | None, unanimous: bool) -> None:
    found = find_consensus(given_answers(letters))
    assert (found and found.annotations[0].concept) == majority
    assert (found is not None and found.unanimous) == unanimous


@given(st.permutations("aaabc"))
def test_the_order_of_answers_does_not_matter(letters: list[str]) -> None:
    found = find_consensus(given_answers("".join(letters)))
    assert found is not None
    assert found.annotations[0].concept == "a"


def test_scores_and_order_make_no_difference_and_shapes_do() -> None:
    box = Annotation(concept="a", box=PixelBox(x_max_px=2, y_max_px=2))
    wider = Annotation(concept="a", box=PixelBox(x_max_px=3, y_max_px=2))
    same = [Submission(annotations=[says("a", 0.5), says("b")]), Submission(annotations=[says("b"), says("a")])]
    assert find_consensus(same) is not None
    assert find_consensus([Submission(annotations=[box]), Submission(annotations=[wider])]) is None


@given(share=st.floats(0, 1))
def test_the_share_that_is_reviewed_is_the_share_that_is_asked(share: float) -> None:
    drawn = sum(is_sampled(f"task-{index}", share) for index in range(1000)) / 1000
    assert abs(drawn - share) < 0.06


def test_alpha_is_one_for_perfect_agreement_and_unset_for_too_little() -> None:
    shared = [Answer(f"t{index}", who, [says("ab"[index % 2])], None) for index in range(6) for who in ("x", "y")]
    assert measure_agreement(shared).alpha == pytest.approx(1.0)
    assert not measure_agreement(shared[:2]).HasField("alpha")
    assert not measure_agreement([]).annotators


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Annotation(concept="a"), "SHAPE_MISSING"),
        (Annotation(concept="a", box=PixelBox(x_max_px=float("nan"))), "SHAPE_NOT_FINITE"),
        (Annotation(concept="z", image_label=ImageLabel()), "CONCEPT_NOT_ASKED"),
    ],
)
def test_an_answer_must_make_sense(annotation: Annotation, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_answer([annotation], Campaign(concepts=["a"]), "submission.annotations")
    assert refused.value.reason == reason


def test_other_shapes_pass_unharmed() -> None:
    box = Annotation(concept="a", box=PixelBox(x_max_px=2, y_max_px=2))
    check_answer([box, box], Campaign(concepts=["a"]), "submission.annotations")
