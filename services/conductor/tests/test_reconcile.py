"""Where a Loop ends or pauses, and that a repeated reconciliation returns the same step."""

from dataclasses import replace

from conductor_builders import (
    a_campaign,
    a_comparison,
    a_dataset,
    a_policy,
    a_run,
    a_situation,
    a_snapshot,
    a_task,
    after_round_one,
    an_observed_state,
    command_of,
    trained,
    version,
)
from vesta_conductor.reconciliation.reconcile import reconcile
from vesta_conductor.reconciliation.state import RoundOutcome
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.datasets.v1 import SelectItemsResponse


class TestEnds:
    def test_a_spent_budget_exhausts_the_loop_and_a_larger_one_resumes_it(self) -> None:
        situation = after_round_one(campaign=a_campaign(accepted_count=70))
        situation = replace(situation, policy=a_policy(label_budget=70))
        step = reconcile(situation)
        assert step.phase == LoopStatus.EXHAUSTED
        assert "70 answers" in step.message
        assert reconcile(replace(situation, policy=a_policy(label_budget=200))).question is not None

    def test_an_empty_pool_exhausts_the_loop(self) -> None:
        step = reconcile(after_round_one(dataset=a_dataset(train_labelled_count=50, pool_count=0)))
        assert step.phase == LoopStatus.EXHAUSTED
        assert "New items" in step.message

    def test_a_pool_of_near_duplicates_exhausts_the_loop(self) -> None:
        situation = after_round_one(selection=SelectItemsResponse())
        assert reconcile(situation).phase == LoopStatus.EXHAUSTED

    def test_a_budget_of_zero_trains_on_existing_labels(self) -> None:
        observed = an_observed_state(dataset=a_dataset(train_labelled_count=30))
        assert (
            command_of(reconcile(a_situation(observed=observed, policy=a_policy(label_budget=0)))).action == "snapshot"
        )

    def test_undecided_tasks_are_awaited_after_the_budget_is_spent(self) -> None:
        situation = after_round_one(campaign=a_campaign(accepted_count=60, open_count=10), undecided=(a_task(1),))
        assert reconcile(replace(situation, policy=a_policy(label_budget=70))).phase == LoopStatus.LABELLING


class TestPause:
    def test_a_paused_loop_sends_no_commands_and_reports_its_next_step(self) -> None:
        asking = replace(a_situation(), paused=True)
        assert (reconcile(asking).question, reconcile(asking).command) == (None, None)
        training = replace(a_situation(observed=an_observed_state(snapshot=a_snapshot())), paused=True)
        step = reconcile(training)
        assert (step.command, step.round) == (None, None)
        assert step.message.startswith("Paused. Next step: ")

    def test_running_work_of_a_paused_loop_is_still_recorded(self) -> None:
        worse = a_run(2, champion=version(1), comparison=a_comparison(-0.03))
        assert command_of(reconcile(replace(trained(run=worse), paused=True))).outcome is RoundOutcome.KEPT


def test_the_same_state_gives_the_same_step() -> None:
    assert reconcile(trained()) == reconcile(trained())
