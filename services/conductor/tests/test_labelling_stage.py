"""The tasks that a Loop creates, including those of the test split."""

from dataclasses import replace
from typing import Any

import pytest
from conductor_builders import (
    DATASET,
    a_campaign,
    a_dataset,
    a_deployment,
    a_label,
    a_policy,
    a_situation,
    a_task,
    after_round_one,
    an_observed_state,
    answered,
    command_of,
    question_of,
    scored,
    version,
)
from vesta_conductor.reconciliation.reconcile import reconcile
from vesta_contracts.annotation.v1 import BatchCreateTasksRequest
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.datasets.v1 import SelectedItem, SelectItemsResponse
from vesta_contracts.serving.v1 import UncertaintyPolicy


class TestAsking:
    def test_a_batch_is_selected_with_the_control_share_and_its_own_seed(self) -> None:
        question = question_of(reconcile(a_situation(policy=a_policy(control_share=0.2))))
        assert (question.parent, question.count, question.control_share, question.seed) == (DATASET, 50, 0.2, 0)

    def test_selected_items_become_tasks_with_the_fields_of_the_selection(self) -> None:
        situation = a_situation()
        chosen = SelectItemsResponse(
            items=[
                SelectedItem(
                    item="i1",
                    reason="unsure",
                    pre_annotations=[a_label("car", 0.6)],
                    model_version=version(1),
                    prediction_certain=True,
                ),
                SelectedItem(item="i2", control=True, reason="control"),
            ]
        )
        step = reconcile(replace(situation, observed=replace(situation.observed, selection=chosen)))
        request = command_of(step).request
        assert isinstance(request, BatchCreateTasksRequest)
        assert request.request_id == command_of(step).request_id == "u-ask-0-0"
        first, second = request.tasks
        assert (first.item, first.selection_reason, first.model_version) == ("i1", "unsure", version(1))
        assert first.pre_annotations[0].concept == "car"
        assert first.prediction_certain
        assert second.control
        assert not second.prediction_certain
        assert first.priority > second.priority

    def test_the_reason_states_the_number_of_tasks(self) -> None:
        assert "50 tasks: 42 selected, 8 at random" in command_of(answered(a_situation(), control=8)).reason

    def test_items_with_unsettled_answers_are_not_selected(self) -> None:
        observed = an_observed_state(
            campaign=a_campaign(open_count=1, accepted_count=1),
            undecided=(a_task(1),),
            accepted=(a_task(2, answer="car"),),
        )
        question = question_of(reconcile(a_situation(observed=observed)))
        assert list(question.excluded) == [f"{DATASET}/items/i1", f"{DATASET}/items/i2"]
        assert question.count == 49

    def test_request_ids_are_not_reused(self) -> None:
        observed = an_observed_state(
            campaign=a_campaign(accepted_count=20, cancelled_count=30), dataset=a_dataset(train_labelled_count=20)
        )
        assert command_of(answered(a_situation(observed=observed))).request_id == "u-ask-0-50"

    @pytest.mark.parametrize(
        ("undecided", "labels", "asked"),
        [
            (26, 0, None),  # more than half of the batch is undecided
            (25, 0, 25),
            (0, 20, 30),  # only what the next training needs
            (20, 29, 1),
            (20, 30, None),  # the undecided tasks suffice
        ],
    )
    def test_a_batch_is_refilled_when_half_is_decided_and_only_until_training(
        self, undecided: int, labels: int, asked: int | None
    ) -> None:
        observed = an_observed_state(
            campaign=a_campaign(open_count=undecided, accepted_count=labels),
            undecided=tuple(a_task(number) for number in range(undecided)),
            dataset=a_dataset(train_labelled_count=labels),
        )
        step = reconcile(a_situation(observed=observed))
        assert (step.question.count if step.question else None) == asked
        if asked is None:
            assert step.phase == LoopStatus.LABELLING
            assert f"{labels} of 50 new labels" in step.message

    def test_no_tasks_are_created_while_answers_are_unsettled(self) -> None:
        observed = an_observed_state(campaign=a_campaign(accepted_count=50), unsettled=True)
        step = reconcile(a_situation(observed=observed))
        assert (step.phase, step.question, step.command) == (LoopStatus.LABELLING, None, None)

    @pytest.mark.parametrize(("budget", "annotators_per_task", "asked"), [(30, 1, 30), (90, 3, 30), (100, 3, 33)])
    def test_the_budget_is_never_exceeded(self, budget: int, annotators_per_task: int, asked: int) -> None:
        observed = an_observed_state(campaign=a_campaign(annotators_per_task=annotators_per_task))
        step = reconcile(
            a_situation(
                observed=observed, policy=a_policy(label_budget=budget, annotators_per_task=annotators_per_task)
            )
        )
        assert question_of(step).count == asked

    def test_rejected_answers_count_against_the_budget_again(self) -> None:
        observed = an_observed_state(
            campaign=a_campaign(accepted_count=90, rejection_count=5), dataset=a_dataset(train_labelled_count=0)
        )
        assert question_of(reconcile(a_situation(observed=observed, policy=a_policy(label_budget=100)))).count == 5

    def test_the_pool_limits_the_number_of_tasks(self) -> None:
        assert (
            question_of(reconcile(a_situation(observed=an_observed_state(dataset=a_dataset(pool_count=7))))).count == 7
        )


class TestTestSide:
    ITEMS = tuple(f"{DATASET}/items/test{number}" for number in range(30))

    def test_half_of_a_batch_is_from_the_test_split_while_it_lacks_labels(self) -> None:
        observed = an_observed_state(dataset=a_dataset(test_labelled_count=0))
        situation = a_situation(observed=observed, policy=a_policy(test_labels=100))
        request = command_of(answered(situation, test_items=self.ITEMS)).request
        assert isinstance(request, BatchCreateTasksRequest)
        test = [task for task in request.tasks if task.item in self.ITEMS]
        assert (len(test), len(request.tasks)) == (25, 50)
        assert not any(task.pre_annotations or task.control for task in test)

    def test_the_selected_test_items_are_stable(self) -> None:
        situation = a_situation(observed=an_observed_state(dataset=a_dataset(test_labelled_count=0)))
        assert question_of(reconcile(situation)) == question_of(reconcile(situation))
        first, second = (command_of(answered(situation, test_items=self.ITEMS)).request for _ in range(2))
        assert first == second

    def test_only_missing_test_labels_are_requested_and_none_twice(self) -> None:
        observed = an_observed_state(
            dataset=a_dataset(test_labelled_count=10, test_item_count=10 + len(self.ITEMS), train_labelled_count=49),
            campaign=a_campaign(open_count=3, accepted_count=60),
            undecided=tuple(a_task(name) for name in self.ITEMS[:3]),
            accepted=tuple(a_task(name, answer="car") for name in self.ITEMS[3:5]),
        )
        request = command_of(answered(a_situation(observed=observed), test_items=self.ITEMS)).request
        assert isinstance(request, BatchCreateTasksRequest)
        test = {task.item for task in request.tasks if "test split" in task.selection_reason}
        assert len(test) == 5
        assert not test & set(self.ITEMS[:5])

    def test_the_first_training_waits_for_test_labels(self) -> None:
        undecided = tuple(a_task(name) for name in self.ITEMS[:2])
        observed = an_observed_state(
            dataset=a_dataset(test_labelled_count=18, train_labelled_count=60),
            campaign=a_campaign(open_count=2, accepted_count=78),
            undecided=undecided,
        )
        step = reconcile(a_situation(observed=observed))
        assert step.phase == LoopStatus.LABELLING
        assert "2 labels of the test split" in step.message

    def test_a_small_test_split_does_not_delay_training(self) -> None:
        observed = an_observed_state(
            dataset=a_dataset(test_item_count=3, test_labelled_count=3, train_labelled_count=50)
        )
        assert command_of(reconcile(a_situation(observed=observed))).action == "snapshot"

    def test_later_trainings_do_not_wait_for_test_labels(self) -> None:
        situation = after_round_one(dataset=a_dataset(test_labelled_count=5, train_labelled_count=100))
        assert command_of(answered(situation, test_items=self.ITEMS)).action == "snapshot"

    @pytest.mark.parametrize(
        ("policy", "labelled", "expected"),
        [
            ({}, 100, 12),
            ({}, 297, 1),
            ({}, 298, 0),
            ({"error_rate_max": 0.1}, 100, 0),
            ({"error_rate_max": 0.001}, 999, 1),
            ({"margin_certain": 0.2}, 100, 0),
            ({"test_labels": 20}, 100, 0),
        ],
    )
    def test_later_batches_contain_test_items_until_they_show_the_error_rate(
        self, policy: dict[str, Any], labelled: int, expected: int
    ) -> None:
        free = tuple(f"{DATASET}/items/t{place}" for place in range(100))
        dataset = a_dataset(test_labelled_count=labelled, test_item_count=labelled + len(free), train_labelled_count=50)
        bounds = UncertaintyPolicy(**{name: value for name, value in policy.items() if name != "test_labels"})
        deployment = a_deployment(version(1), scoring=scored(version(1)), uncertainty=bounds)
        observed = after_round_one(dataset=dataset, deployment=deployment)
        situation = replace(observed, policy=a_policy(**{"test_labels": 0, **policy}))
        request = command_of(answered(situation, test_items=free)).request
        assert isinstance(request, BatchCreateTasksRequest)
        assert sum("test split" in task.selection_reason for task in request.tasks) == expected

    def test_a_spent_budget_trains_with_the_existing_test_labels(self) -> None:
        observed = an_observed_state(
            dataset=a_dataset(test_labelled_count=5, train_labelled_count=20),
            campaign=a_campaign(accepted_count=25),
        )
        assert (
            command_of(reconcile(a_situation(observed=observed, policy=a_policy(label_budget=25)))).action == "snapshot"
        )
