"""The latest accepted annotations apply, in any order of arrival."""

from datetime import timedelta
from functools import reduce
from itertools import permutations

from datasets_builders import NOON, Datasets, a_medium, handle_accepted, says
from hypothesis import given
from hypothesis import strategies as st
from vesta_contracts.datasets.v1 import AcceptedAnnotations, GetItemRequest
from vesta_datasets.items.accepted_annotations import latest, next_accept_time

SECOND = timedelta(seconds=1)


def accepted_at(seconds: int, task: str = "", concept: str = "van", *, control: bool = False) -> AcceptedAnnotations:
    made = AcceptedAnnotations(annotations=says(concept), task=task, control=control)
    made.accept_time.FromDatetime(NOON + seconds * SECOND)
    return made


def accepted_of(datasets: Datasets, item: str) -> AcceptedAnnotations:
    return datasets.items.GetItem(GetItemRequest(name=item)).accepted


def concept_of(datasets: Datasets, item: str) -> str:
    return accepted_of(datasets, item).annotations[0].concept


@given(
    st.lists(
        st.builds(
            accepted_at,
            st.integers(0, 2),
            st.sampled_from(["projects/a/campaigns/c/tasks/1", "projects/a/campaigns/c/tasks/2"]),
            control=st.booleans(),
        ),
        max_size=4,
        unique_by=lambda made: (made.accept_time.seconds, made.task),
    )
)
def test_every_order_of_events_gives_the_same_annotations(accepted: list[AcceptedAnnotations]) -> None:
    ends = {reduce(latest, order, None).SerializeToString() for order in permutations(accepted) if order}
    assert len(ends) <= 1


def test_of_two_answers_at_the_same_time_that_of_the_later_task_is_kept() -> None:
    one, other = accepted_at(0, "tasks/1", "van"), accepted_at(0, "tasks/2", "car")
    assert latest(one, other) == latest(other, one) == other


def test_an_answer_given_after_another_is_later_even_if_clocks_differ() -> None:
    ahead = accepted_at(60, "tasks/1")
    assert next_accept_time(None, NOON) == NOON
    assert next_accept_time(ahead, NOON) > NOON + 60 * SECOND
    assert next_accept_time(ahead, NOON + 90 * SECOND) == NOON + 90 * SECOND


def test_a_delayed_older_answer_changes_nothing_and_publishes_nothing(datasets: Datasets) -> None:
    (item,) = datasets.add(datasets.a_dataset(), a_medium(1))
    handle_accepted(datasets, item.name, 2, "tasks/1", "car")
    published = datasets.event_types()
    handle_accepted(datasets, item.name, 1, "tasks/2", "van")
    assert concept_of(datasets, item.name) == "car"
    assert datasets.listed(item.name.partition("/items/")[0], 'label = "car"') == [item.name]
    assert datasets.event_types() == published


def test_an_older_answer_does_not_replace_a_correction(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    datasets.annotate(dataset, item.name, "car")
    before = int((datasets.store.clock.now() - NOON).total_seconds()) - 1
    handle_accepted(datasets, item.name, before, "tasks/1", "van")
    assert concept_of(datasets, item.name) == "car"


def test_a_correction_is_kept_although_the_clock_of_the_answer_was_ahead(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1))
    ahead = int((datasets.store.clock.now() - NOON).total_seconds()) + 60
    handle_accepted(datasets, item.name, ahead, "tasks/1", "van")
    datasets.annotate(dataset, item.name, "car")
    assert concept_of(datasets, item.name) == "car"
    handle_accepted(datasets, item.name, ahead, "tasks/1", "van")
    assert concept_of(datasets, item.name) == "car"


def test_an_older_answer_still_marks_the_item_as_control(datasets: Datasets) -> None:
    (item,) = datasets.add(datasets.a_dataset(), a_medium(1))
    handle_accepted(datasets, item.name, 2, "tasks/2", "car")
    handle_accepted(datasets, item.name, 1, "tasks/1", "van", control=True)
    found = accepted_of(datasets, item.name)
    assert (found.annotations[0].concept, found.control) == ("car", True)
