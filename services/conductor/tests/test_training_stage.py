"""A round from enough labels to a pool that the new champion has scored."""

from dataclasses import replace
from datetime import timedelta

from conductor_builders import (
    ITEMS,
    LOOP,
    NAMES,
    NOW,
    a_comparison,
    a_dataset,
    a_deployment,
    a_history,
    a_model,
    a_policy,
    a_round,
    a_run,
    a_situation,
    a_snapshot,
    a_task,
    after_round_one,
    an_observed_state,
    command_of,
    question_of,
    scored,
    some_metrics,
    trained,
    version,
)
from vesta_conductor.reconciliation.reconcile import reconcile
from vesta_conductor.reconciliation.state import RoundOutcome, Situation
from vesta_conductor.reconciliation.status import status_of
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.conductor.v1 import LabelSaving, LoopStatus
from vesta_contracts.datasets.v1 import CreateSnapshotRequest
from vesta_contracts.serving.v1 import Deployment, UpdateDeploymentRequest
from vesta_contracts.training.v1 import CreateTrainingRunRequest, TrainingProgress, TrainingRun


class TestTraining:
    def test_enough_new_labels_create_a_snapshot_and_are_recorded_in_the_round(self) -> None:
        accepted = (a_task(1, answer="car", ago=30), a_task(2, answer="van", ago=10))
        observed = an_observed_state(dataset=a_dataset(train_labelled_count=52), accepted=accepted)
        step = reconcile(a_situation(observed=observed))
        command = command_of(step)
        assert isinstance(command.request, CreateSnapshotRequest)
        assert (command.request.snapshot_id, command.request_id) == ("vans-r1", "u-snapshot-1")
        assert command.reason == "52 new labels so far; a training starts at 50."
        assert step.round is not None
        assert step.round.round.label_count == 52
        assert step.round.label_time == NOW - timedelta(seconds=10)

    def test_new_labels_are_counted_since_the_last_training(self) -> None:
        waiting = after_round_one(
            dataset=a_dataset(train_labelled_count=99), undecided=tuple(a_task(n) for n in range(30))
        )
        assert reconcile(waiting).phase == LoopStatus.LABELLING
        due = after_round_one(dataset=a_dataset(train_labelled_count=100))
        assert command_of(reconcile(due)).reason == "50 new labels since version 1; a training starts at 50."

    def test_late_answers_do_not_delay_training(self) -> None:
        observed = an_observed_state(dataset=a_dataset(train_labelled_count=50), undecided=(a_task(1),))
        assert command_of(reconcile(a_situation(observed=observed))).action == "snapshot"

    def test_the_last_labels_are_trained_on_even_if_they_are_few(self) -> None:
        observed = an_observed_state(dataset=a_dataset(train_labelled_count=3, pool_count=0))
        assert "no more are expected" in command_of(reconcile(a_situation(observed=observed))).reason

    def test_the_training_run_has_champion_seed_and_control_curve(self) -> None:
        command = command_of(reconcile(after_round_one(snapshot=a_snapshot(2))))
        assert isinstance(command.request, CreateTrainingRunRequest)
        run = command.request.training_run
        assert command.request.training_run_id == "vans-r2"
        assert (run.snapshot, run.champion, run.seed, run.control_curve) == (NAMES.snapshot(2), version(1), 2, True)
        assert (run.model, run.recipe) == ("projects/acme/models/vans", "projects/acme/recipes/classification")

    def test_an_embedding_model_is_not_a_champion(self) -> None:
        request = command_of(reconcile(a_situation(observed=an_observed_state(snapshot=a_snapshot())))).request
        assert isinstance(request, CreateTrainingRunRequest)
        assert not request.training_run.champion

    def test_the_recipe_follows_the_policy_or_the_kind_of_dataset(self) -> None:
        multi = an_observed_state(snapshot=a_snapshot(), dataset=a_dataset(task_type=TaskType.TASK_TYPE_MULTI_LABEL))
        request = command_of(reconcile(a_situation(observed=multi))).request
        assert isinstance(request, CreateTrainingRunRequest)
        assert request.training_run.recipe == "projects/acme/recipes/multilabel"
        boxes = an_observed_state(snapshot=a_snapshot(), dataset=a_dataset(task_type=TaskType.TASK_TYPE_DETECTION))
        request = command_of(reconcile(a_situation(observed=boxes))).request
        assert isinstance(request, CreateTrainingRunRequest)
        assert request.training_run.recipe == "projects/acme/recipes/detection"
        own = a_situation(observed=multi, policy=a_policy(recipe="projects/acme/recipes/ours"))
        request = command_of(reconcile(own)).request
        assert isinstance(request, CreateTrainingRunRequest)
        assert request.training_run.recipe == "projects/acme/recipes/ours"

    def test_one_concept_alone_postpones_training(self) -> None:
        step = reconcile(a_situation(observed=an_observed_state(snapshot=a_snapshot(concepts={"car": 50}))))
        command = command_of(step)
        assert (command.outcome, command.request) == (RoundOutcome.POSTPONED, None)
        assert "car" in command.reason

    def test_after_a_postponed_round_more_labels_are_requested(self) -> None:
        postponed = a_round(1, outcome=RoundOutcome.POSTPONED, label_count=50)
        observed = an_observed_state(dataset=a_dataset(train_labelled_count=50))
        assert question_of(reconcile(a_situation(observed=observed, history=a_history(postponed)))).count == 50

    def test_training_progress_is_in_the_status(self) -> None:
        progress = TrainingProgress(phase="head", step=3, step_count=9)
        progress.time_left.FromSeconds(12)
        step = reconcile(trained(run=a_run(2, state=TrainingRun.RUNNING, progress=progress)))
        assert step.phase == LoopStatus.TRAINING
        assert "head, step 3 of 9, about 12 s left" in step.message

    def test_a_failed_run_is_retried_once_under_another_name(self) -> None:
        command = command_of(reconcile(trained(run=a_run(2, state=TrainingRun.FAILED, error="out of memory."))))
        assert command.resource == NAMES.run(2, 2) == "projects/acme/trainingRuns/vans-r2-retry1"
        assert command.request_id == "u-train-2-2"
        assert "out of memory" in command.reason

    def test_two_failures_end_the_round_with_the_reason(self) -> None:
        failed = tuple(a_run(2, attempt, TrainingRun.FAILED, error="out of memory.") for attempt in (1, 2))
        situation = trained()
        step = reconcile(replace(situation, observed=replace(situation.observed, runs=failed)))
        assert command_of(step).outcome is RoundOutcome.FAILED
        assert step.round is not None
        assert "out of memory" in step.round.round.verdict.reason

    def test_a_cancelled_run_is_not_retried(self) -> None:
        assert command_of(reconcile(trained(run=a_run(2, state=TrainingRun.CANCELLED)))).outcome is RoundOutcome.FAILED

    def test_after_a_failed_round_the_loop_is_blocked_until_labels_or_policy_change(self) -> None:
        failed = a_round(1, outcome=RoundOutcome.FAILED, label_count=50)
        blocked = a_situation(
            observed=an_observed_state(dataset=a_dataset(train_labelled_count=50)), history=a_history(failed)
        )
        assert reconcile(blocked).phase == LoopStatus.BLOCKED
        labelled = replace(blocked, observed=an_observed_state(dataset=a_dataset(train_labelled_count=51)))
        assert command_of(reconcile(labelled)).resource == NAMES.snapshot(2)
        assert command_of(reconcile(replace(blocked, policy_revision=2))).resource == NAMES.snapshot(2)


class TestDeploying:
    def test_a_challenger_that_passes_is_promoted(self) -> None:
        step = reconcile(trained())
        command = command_of(step)
        assert isinstance(command.request, UpdateDeploymentRequest)
        assert (command.action, command.request_id) == ("promote", "u-promote-2")
        assert command.request.deployment.model_version == version(2)
        assert list(command.request.update_mask.paths) == ["model_version"]
        assert step.round is not None
        assert step.round.round.verdict.passed

    def test_a_round_stores_no_confusion_matrix(self) -> None:
        metrics = some_metrics(0.82)
        metrics.confusion.extend([1] * 10_000)
        record = reconcile(trained(run=a_run(2, champion=version(1), comparison=a_comparison(), metrics=metrics))).round
        assert record is not None
        assert record.round.metrics == some_metrics(0.82)

    def test_a_rejected_challenger_keeps_the_champion_and_ends_the_round(self) -> None:
        worse = a_run(2, champion=version(1), comparison=a_comparison(-0.03))
        step = reconcile(trained(run=worse))
        assert command_of(step).outcome is RoundOutcome.KEPT
        assert "champion stays" in command_of(step).reason
        assert step.round is not None
        assert step.round.round.model_version == version(2)

    def test_the_loop_waits_while_the_model_is_loaded(self) -> None:
        loading = a_deployment(version(2), version(1), state=Deployment.LOADING)
        step = reconcile(trained(deployment=loading))
        assert (step.phase, step.command) == (LoopStatus.DEPLOYING, None)

    def test_failed_loading_is_retried_and_finally_ends_the_round(self) -> None:
        failed = a_deployment(version(2), version(1), state=Deployment.FAILED, error="bad file")
        situation = trained(deployment=failed)
        first = command_of(reconcile(situation))
        assert first.action == "reload"
        decided = {f"u-reload-2-promote-{number}": NOW for number in range(6)}
        step = reconcile(replace(situation, history=replace(situation.history, decided=decided)))
        assert command_of(step).outcome is RoundOutcome.FAILED
        assert "bad file" in command_of(step).reason

    def test_a_manual_change_of_the_deployment_is_kept(self) -> None:
        situation = trained()
        decided = {"u-promote-2": NOW}
        step = reconcile(replace(situation, history=replace(situation.history, decided=decided)))
        assert (command_of(step).action, command_of(step).outcome) == ("yield", RoundOutcome.KEPT)


class TestScoring:
    def answering(self, **counts: int | str) -> Situation:
        return trained(
            deployment=a_deployment(version(2), scoring=scored(version(2), 0)),
            stable=a_model(version(2)),
            dataset=a_dataset(train_labelled_count=100, **counts),
        )

    def test_scores_of_another_model_do_not_count(self) -> None:
        step = reconcile(self.answering(scored_model_version=version(1), scored_count=ITEMS))
        assert (step.phase, step.command) == (LoopStatus.SCORING, None)
        assert "0 of 1000" in step.message

    def test_the_time_from_label_to_model_is_measured_when_the_model_is_ready(self) -> None:
        step = reconcile(self.answering())
        assert step.round is not None
        assert step.round.round.label_to_model.ToTimedelta() == timedelta(seconds=20)

    def test_the_round_ends_when_the_pool_is_scored(self) -> None:
        step = reconcile(
            self.answering(
                scored_model_version=version(2), scored_count=ITEMS, pool_scored_count=800, pool_certain_count=600
            )
        )
        command = command_of(step)
        assert (command.action, command.outcome, command.resource) == ("turn", RoundOutcome.PROMOTED, LOOP)
        assert step.round is not None
        assert step.round.round.auto_share == 0.75
        assert "75 %" in command.reason

    def test_after_scoring_missing_scores_are_awaited_for_at_most_two_minutes(self) -> None:
        situation = self.answering(scored_model_version=version(9), pool_scored_count=800, pool_certain_count=600)
        under_way = replace(situation, now=NOW + timedelta(hours=1))
        assert reconcile(under_way).phase == LoopStatus.SCORING
        ended = a_deployment(version(2), scoring=scored(version(2)))
        waiting = replace(situation, observed=replace(situation.observed, deployment=ended))
        assert reconcile(waiting).phase == LoopStatus.SCORING
        record = reconcile(waiting).round
        assert record is not None
        history = replace(waiting.history, current=record)
        step = reconcile(replace(waiting, history=history, now=NOW + timedelta(minutes=3)))
        assert command_of(step).outcome is RoundOutcome.PROMOTED
        assert step.round is not None
        assert not step.round.round.HasField("auto_share")  # another model's scores are not used for this one

    def test_the_label_saving_is_that_of_the_champion(self) -> None:
        saving = LabelSaving(spent_labels=20)
        situation = self.answering(scored_model_version=version(2), scored_count=ITEMS)
        situation = replace(situation, history=replace(situation.history, label_saving=saving))
        turned = reconcile(situation)
        assert command_of(turned).outcome is RoundOutcome.PROMOTED
        assert (
            "test split" in status_of(situation, turned).label_saving.reason
        )  # nothing is known about the new champion
        loading = trained(deployment=a_deployment(version(2), version(1), state=Deployment.LOADING))
        loading = replace(loading, history=replace(loading.history, label_saving=saving))
        assert status_of(loading, reconcile(loading)).label_saving == saving

    def test_an_empty_pool_has_no_automation_share(self) -> None:
        step = reconcile(self.answering(scored_model_version=version(2), scored_count=ITEMS, pool_count=0))
        assert step.round is not None
        assert not step.round.round.HasField("auto_share")
