"""Agreement of annotators."""

from collections import Counter
from itertools import permutations

import pytest
from annotation_builders import label
from hypothesis import given
from hypothesis import strategies as st
from vesta_annotation import concept_agreement
from vesta_annotation.agreement import Answer, measure_agreement
from vesta_annotation.alpha import PAIRS_MAX, distance_alpha, nominal_alpha
from vesta_annotation.rows import answer_of
from vesta_annotation.task_types.image_labels import ImageAnswer, ImageLabels, answer_key
from vesta_contracts.annotation.v1 import Agreement, AnnotatorAgreement, Submission, Task


def an_answer(letters: str) -> ImageAnswer:
    """Returns an answer with a label for each letter."""
    return ImageAnswer(letters.encode(), frozenset(letters))


def the_answers(*told: str, accepted: str = "") -> list[Answer]:
    """Builds answers. Each string of `told` is a task: the answers of ada, bob and cyd, one letter each, or a dot for none."""
    return [
        Answer(
            f"task-{index}",
            who,
            an_answer(letter),
            an_answer(accepted[index]) if accepted[index:] else None,
            is_accepted=bool(accepted[index:]),
        )
        for index, letters in enumerate(told)
        for who, letter in zip(("ada", "bob", "cyd"), letters, strict=False)
        if letter != "."
    ]


def agreement(answers: list[Answer]) -> Agreement:
    return measure_agreement(answers, ImageLabels())


def of(annotator: str, *told: str, accepted: str = "") -> AnnotatorAgreement:
    found = agreement(the_answers(*told, accepted=accepted)).annotators
    return next(one for one in found if one.annotator == annotator)


@pytest.mark.parametrize("told", [(), ("v",), ("vv",), ("vv", "v."), ("v.", ".v")])
def test_alpha_is_unset_with_fewer_than_two_shared_tasks(told: tuple[str, ...]) -> None:
    assert not agreement(the_answers(*told)).HasField("alpha")


@pytest.mark.parametrize(
    ("told", "alpha"),
    [
        (("vv", "cc"), 1.0),
        (("vv", "vv"), 1.0),
        (("vc", "cv"), -0.5),
        (("vv", "cc", "vc", "cc"), 8 / 15),
    ],
)
def test_alpha_equals_the_published_value(told: tuple[str, ...], alpha: float) -> None:
    assert agreement(the_answers(*told)).alpha == pytest.approx(alpha)


def test_tasks_with_one_answer_are_not_shared() -> None:
    assert agreement(the_answers("vv", "cc", "v.", ".c")).task_count == 2


def test_accuracy_counts_only_decided_tasks() -> None:
    ada = of("ada", "vv", "cv", "vv", accepted="vv")
    assert (ada.submission_count, ada.decided_count, ada.accuracy) == (3, 2, 0.5)


def test_accuracy_is_unset_where_nothing_is_decided() -> None:
    assert not of("ada", "vv", "cv").HasField("accuracy")


def test_an_expert_is_measured_on_shared_tasks() -> None:
    told = ("vvc", "ccv", "bb.", "vv.")
    assert of("cyd", *told).alpha < 0 < of("ada", *told).alpha


def test_the_disagreement_of_others_does_not_affect_the_agreement_of_an_expert() -> None:
    ada_and_bob_agree = ("vvc", "ccb", "bbv", "vvb", "ccv", "bbc")
    assert of("ada", *ada_and_bob_agree).alpha > 0.2 > 0 > of("cyd", *ada_and_bob_agree).alpha


@pytest.mark.parametrize(
    ("value", "accepted", "right"), [("v", None, 0), ("v", "v", 1), ("v", "c", 0)], ids=["undecided", "right", "wrong"]
)
def test_a_rejected_answer_is_wrong_unless_it_was_accepted_in_the_end(
    value: str, accepted: str | None, right: float
) -> None:
    answer = Answer(
        "t",
        "ada",
        an_answer(value),
        an_answer(accepted) if accepted else None,
        is_accepted=bool(accepted),
        rejected=True,
    )
    (ada,) = agreement([answer]).annotators
    assert (ada.submission_count, ada.decided_count, ada.accuracy) == (1, 1, right)


def test_a_rejected_answer_does_not_count_for_agreement() -> None:
    rejected = Answer("task-0", "ada", an_answer("c"), None, is_accepted=False, rejected=True)
    assert agreement([rejected, *the_answers("vv", "cc")]).alpha == 1


def test_experts_are_listed_by_name() -> None:
    found = agreement(the_answers("vvv", "ccc")).annotators
    assert [one.annotator for one in found] == ["ada", "bob", "cyd"]


def test_alpha_of_the_worked_example_is_as_published() -> None:
    """K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, section C: 12 units, 4 observers, 0.743."""
    observers = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = [[value.encode() for value in values if value != "."] for values in zip(*observers, strict=True)]
    assert nominal_alpha(unit for unit in units if len(unit) > 1) == pytest.approx(0.743, abs=0.0005)


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=2, max_size=5), min_size=2, max_size=12))
def test_alpha_equals_that_of_the_coincidence_matrix(units: list[list[str]]) -> None:
    assert nominal_alpha([value.encode() for value in unit] for unit in units) == pytest.approx(by_definition(units))


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=2, max_size=5), min_size=2, max_size=12))
def test_alpha_with_the_nominal_distance_equals_nominal_alpha(units: list[list[str]]) -> None:
    found = distance_alpha(units, lambda one, other: float(one != other))
    assert found == pytest.approx(nominal_alpha(units))


def test_chance_is_estimated_from_some_pairs_of_many_answers() -> None:
    calls = []
    units = [[number, number + 1] for number in range(0, 10_000, 2)]
    found = distance_alpha(units, lambda one, other: calls.append(None) or min(1.0, abs(one - other) / 1000))
    assert found == pytest.approx(1, abs=0.01)
    assert len(calls) == 5_000 + PAIRS_MAX


def by_definition(units: list[list[str]]) -> float:
    """A naive implementation of alpha: all ordered pairs of values of a unit, weighted by 1 / (values of the unit - 1)."""
    coincidences: Counter[tuple[str, str]] = Counter()
    for unit in units:
        for pair in permutations(unit, 2):
            coincidences[pair] += 1 / (len(unit) - 1)  # type: ignore[assignment]
    totals = Counter(value for unit in units for value in unit)
    observed = sum(weight for (one, other), weight in coincidences.items() if one != other)
    expected = sum(totals[one] * totals[other] for one, other in permutations(totals, 2)) / (totals.total() - 1)
    return 1 - observed / expected if expected else 1.0


def test_agreement_of_ten_thousand_different_answers_is_computed_quickly() -> None:
    told = [(f"{task}-ada".encode(), f"{task}-bob".encode()) for task in range(10_000)]
    assert nominal_alpha(told) == pytest.approx(0, abs=1e-3)


def test_an_answer_stored_without_a_key_counts_by_its_content() -> None:
    said = [label("van")]
    row = {"task": "t", "annotator": "ada", "state": "ACCEPTED", "rejected": False, "time_spent": None}
    old = {
        "answer_key": None,
        "accepted_key": None,
        "body": Submission(annotations=said).SerializeToString(),
        "task_body": Task(accepted=said).SerializeToString(),
    }
    new = {"answer_key": answer_key(said), "accepted_key": answer_key(said), "body": None, "task_body": None}
    value = ImageLabels().value(said)
    assert (
        answer_of(row | old, ImageLabels(), {})
        == answer_of(row | new, ImageLabels(), {value.key: value})
        == Answer("t", "ada", value, value, is_accepted=True)
    )


def test_image_labels_are_measured_by_concept_and_annotator() -> None:
    found = agreement(the_answers("vv", "cc", "vb", "bb", accepted="vcvb"))
    assert [(one.concept, one.object_count) for one in found.concepts] == [("b", 3), ("c", 2), ("v", 3)]
    by_concept = {one.concept: one for one in found.concepts}
    assert (by_concept["c"].alpha, by_concept["c"].f1) == (1, 1)
    assert by_concept["v"].alpha == pytest.approx(nominal_alpha([[1, 1], [0, 0], [1, 0], [0, 0]]))
    assert by_concept["v"].f1 == pytest.approx(2 / 3)
    ada, bob = found.annotators
    assert {one.concept: one.f1 for one in ada.concepts} == {"b": 1, "c": 1, "v": 1}
    assert {one.concept: round(one.f1, 3) for one in bob.concepts} == {"b": 0.667, "c": 1, "v": 0.667}
    assert (ada.f1, bob.f1) == (1, 0.75)


def test_agreement_by_concept_is_estimated_from_some_of_many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concept_agreement, "COMPARISONS_MAX", 10)
    found = agreement(the_answers(*["vv", "cc", "vc", "vv", "cc"] * 20))
    assert [one.object_count for one in found.concepts] == [100, 100]
    assert all(one.HasField("alpha") for one in found.concepts)
