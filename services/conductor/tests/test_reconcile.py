"""What a Loop does next, phase by phase and branch by branch."""

from dataclasses import replace
from datetime import timedelta

import pytest
from conductor_builders import (
    DATASET,
    EMBEDDING,
    ITEMS,
    LOOP,
    NAMES,
    NOW,
    a_campaign,
    a_comparison,
    a_dataset,
    a_deployment,
    a_history,
    a_label,
    a_model,
    a_policy,
    a_round,
    a_run,
    a_situation,
    a_snapshot,
    a_task,
    a_world,
    after_round_one,
    scored,
    some_metrics,
    version,
)
from vesta_conductor.reconcile import reconcile
from vesta_conductor.situation import Command, Outcome, Situation, Step
from vesta_conductor.status import status_of
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    Campaign,
    CreateCampaignRequest,
    UpdateCampaignRequest,
)
from vesta_contracts.conductor.v1 import LabelSaving, LoopStatus
from vesta_contracts.datasets.v1 import CreateSnapshotRequest, SelectedItem, SelectItemsRequest, SelectItemsResponse
from vesta_contracts.serving.v1 import CreateDeploymentRequest, Deployment, UpdateDeploymentRequest
from vesta_contracts.training.v1 import CreateTrainingRunRequest, TrainingProgress, TrainingRun


def command_of(step: Step) -> Command:
    assert step.command is not None, step
    return step.command


def question_of(step: Step) -> SelectItemsRequest:
    assert step.question is not None, step
    return step.question


def answered(situation: Situation, *, control: int = 0) -> Step:
    """The step after the datasets service has chosen what was asked for."""
    question = question_of(reconcile(situation))
    items = [
        SelectedItem(item=f"{DATASET}/items/s{place}", control=place < control, reason="typical")
        for place in range(question.count)
    ]
    world = replace(situation.world, selection=SelectItemsResponse(items=items))
    return reconcile(replace(situation, world=world))


def trained(number: int = 2, *, run: TrainingRun | None = None, **world: object) -> Situation:
    """Round 2 whose training has ended, version 1 being the champion."""
    succeeded = a_run(number, champion=version(1), comparison=a_comparison(), metrics=some_metrics(0.82))
    return after_round_one(snapshot=a_snapshot(number), runs=(run or succeeded,), **world)


class TestItems:
    def test_a_loop_whose_dataset_is_gone_is_blocked_and_says_so(self) -> None:
        step = reconcile(a_situation(world=a_world(dataset=None)))
        assert step.phase == LoopStatus.BLOCKED
        assert DATASET in step.message

    def test_a_loop_whose_taxonomy_is_gone_is_blocked(self) -> None:
        assert reconcile(a_situation(world=a_world(taxonomy=None))).phase == LoopStatus.BLOCKED

    def test_an_empty_dataset_is_waited_for(self) -> None:
        step = reconcile(a_situation(world=a_world(dataset=a_dataset(item_count=0))))
        assert step.phase == LoopStatus.WAITING_FOR_ITEMS
        assert step.command is None


class TestCampaign:
    def test_a_campaign_is_opened_with_the_policy_and_the_living_concepts(self) -> None:
        policy = a_policy(instructions="Look twice.", replicas=2, review_share=0.1)
        command = command_of(reconcile(a_situation(world=a_world(campaign=None), policy=policy)))
        request = command.request
        assert isinstance(request, CreateCampaignRequest)
        assert (command.action, request.campaign_id, request.request_id) == (
            "open_campaign",
            "vans",
            command.request_id,
        )
        assert list(request.campaign.concepts) == ["car", "van"]
        assert (request.campaign.replicas, request.campaign.review_share) == (2, 0.1)

    def test_a_campaign_of_another_dataset_blocks(self) -> None:
        step = reconcile(a_situation(world=a_world(campaign=a_campaign(dataset="projects/acme/datasets/cats"))))
        assert step.phase == LoopStatus.BLOCKED

    def test_a_closed_campaign_blocks(self) -> None:
        assert (
            reconcile(a_situation(world=a_world(campaign=a_campaign(state=Campaign.CLOSED)))).phase
            == LoopStatus.BLOCKED
        )

    def test_a_changed_policy_reaches_the_campaign(self) -> None:
        command = command_of(reconcile(a_situation(policy=a_policy(instructions="New."))))
        assert isinstance(command.request, UpdateCampaignRequest)
        assert list(command.request.update_mask.paths) == ["instructions"]


class TestEmbedding:
    def test_an_item_of_few_that_cannot_be_read_holds_nothing_up_for_longer_than_two_minutes(self) -> None:
        waiting = a_situation(world=a_world(dataset=a_dataset(item_count=10, embedded_count=9)))
        assert reconcile(waiting).phase == LoopStatus.EMBEDDING
        assert reconcile(replace(waiting, now=NOW + timedelta(minutes=3))).phase != LoopStatus.EMBEDDING

    def test_the_embedding_model_is_made_first(self) -> None:
        command = command_of(reconcile(a_situation(world=a_world(deployment=None, stable=None))))
        assert isinstance(command.request, CreateTrainingRunRequest)
        assert command.request.training_run_id == "vans-embedding"
        assert command.request.training_run.recipe == "projects/acme/recipes/embedding"
        assert command.request.training_run.model == "projects/acme/models/vans-embedding"

    def test_its_run_is_waited_for(self) -> None:
        run = TrainingRun(name=NAMES.embedding_run(1), state=TrainingRun.QUEUED, waiting_reason="Another run is first.")
        step = reconcile(a_situation(world=a_world(deployment=None, stable=None, embedding_runs=(run,))))
        assert step.command is None
        assert "Another run is first." in step.message

    def test_a_failed_run_is_tried_once_more_and_then_blocks_until_the_policy_changes(self) -> None:
        failed = TrainingRun(name=NAMES.embedding_run(1), state=TrainingRun.FAILED, error="no weights")
        once = a_situation(world=a_world(deployment=None, stable=None, embedding_runs=(failed,)))
        assert command_of(reconcile(once)).resource == NAMES.embedding_run(2)
        again = TrainingRun(name=NAMES.embedding_run(2), state=TrainingRun.FAILED, error="no weights")
        twice = replace(once, world=replace(once.world, embedding_runs=(failed, again)))
        assert reconcile(twice).phase == LoopStatus.BLOCKED
        assert "no weights" in reconcile(twice).message
        assert command_of(reconcile(replace(twice, policy_revision=2))).resource == NAMES.embedding_run(3)

    def test_it_is_deployed_for_the_dataset_with_the_policys_certainty(self) -> None:
        run = TrainingRun(name=NAMES.embedding_run(1), state=TrainingRun.SUCCEEDED, model_version=EMBEDDING)
        world = a_world(deployment=None, stable=None, embedding_runs=(run,))
        request = command_of(reconcile(a_situation(world=world, policy=a_policy(score_certain=0.7)))).request
        assert isinstance(request, CreateDeploymentRequest)
        assert request.deployment_id == "vans"
        assert request.deployment.model_version == EMBEDDING
        assert list(request.deployment.datasets) == [DATASET]
        assert request.deployment.uncertainty.score_certain == 0.7

    def test_a_deployment_that_was_deleted_comes_back_with_the_last_champion(self) -> None:
        situation = after_round_one(deployment=None, stable=None)
        request = command_of(reconcile(situation)).request
        assert isinstance(request, CreateDeploymentRequest)
        assert request.deployment.model_version == version(1)

    def test_loading_is_waited_for(self) -> None:
        loading = a_deployment(EMBEDDING, "", state=Deployment.LOADING)
        step = reconcile(a_situation(world=a_world(deployment=loading, stable=None)))
        assert (step.phase, step.command) == (LoopStatus.EMBEDDING, None)

    def test_loading_that_failed_is_tried_again_with_patience_and_then_blocks(self) -> None:
        failed = a_deployment(EMBEDDING, "", state=Deployment.FAILED, error="Triton is away")
        situation = a_situation(world=a_world(deployment=failed, stable=None))
        decided = {}
        waited = 0.0
        for number in range(6):
            command = command_of(reconcile(situation))
            assert command.action == "reload"
            assert isinstance(command.request, UpdateDeploymentRequest)
            decided[command.request_id] = situation.now
            situation = replace(situation, history=replace(situation.history, decided=dict(decided)))
            if number < 5:
                assert reconcile(situation).command is None
                pause = timedelta(seconds=5 * 2**number)
                waited += pause.total_seconds()
                situation = replace(situation, now=situation.now + pause)
        assert waited > 120
        assert reconcile(situation).phase == LoopStatus.BLOCKED
        assert command_of(reconcile(replace(situation, policy_revision=2))).action == "reload"

    def test_a_deployment_that_lacks_the_dataset_gets_it_and_keeps_its_others(self) -> None:
        other = f"{DATASET}-old"
        step = reconcile(a_situation(world=a_world(deployment=a_deployment(datasets=[other]))))
        request = command_of(step).request
        assert isinstance(request, UpdateDeploymentRequest)
        assert list(request.deployment.datasets) == [other, DATASET]
        assert list(request.update_mask.paths) == ["datasets"]

    def test_a_changed_certainty_reaches_the_deployment(self) -> None:
        request = command_of(reconcile(a_situation(policy=a_policy(score_certain=0.9)))).request
        assert isinstance(request, UpdateDeploymentRequest)
        assert list(request.update_mask.paths) == ["uncertainty"]

    @pytest.mark.parametrize(
        ("embedded", "items", "ended", "goes_on"),
        [
            (0, 1000, False, False),
            (249, 1000, False, False),
            (949, 1000, False, False),
            (950, 1000, False, True),
            (100, 100, False, True),
            (97, 100, False, False),
            (97, 100, True, True),
            (90, 100, True, False),
        ],
    )
    def test_enough_items_are_embedded_before_the_first_choice(
        self, embedded: int, items: int, ended: bool, goes_on: bool
    ) -> None:
        scoring = scored(EMBEDDING, ITEMS if ended else 0)
        world = a_world(
            dataset=a_dataset(item_count=items, embedded_count=embedded), deployment=a_deployment(scoring=scoring)
        )
        step = reconcile(a_situation(world=world))
        assert (step.phase != LoopStatus.EMBEDDING) == goes_on
        assert goes_on or f"{embedded} of {items}" in step.message


class TestAsking:
    def test_a_batch_is_chosen_with_the_control_share_and_a_seed_of_its_own(self) -> None:
        question = question_of(reconcile(a_situation(policy=a_policy(control_share=0.2))))
        assert (question.parent, question.count, question.control_share, question.seed) == (DATASET, 50, 0.2, 0)

    def test_what_was_chosen_becomes_tasks_with_all_that_the_selection_said(self) -> None:
        situation = a_situation()
        chosen = SelectItemsResponse(
            items=[
                SelectedItem(
                    item="i1", reason="unsure", pre_annotations=[a_label("car", 0.6)], model_version=version(1)
                ),
                SelectedItem(item="i2", control=True, reason="control"),
            ]
        )
        step = reconcile(replace(situation, world=replace(situation.world, selection=chosen)))
        request = command_of(step).request
        assert isinstance(request, BatchCreateTasksRequest)
        assert request.request_id == command_of(step).request_id == "u-ask-0-0"
        first, second = request.tasks
        assert (first.item, first.selection_reason, first.model_version) == ("i1", "unsure", version(1))
        assert first.pre_annotations[0].concept == "car"
        assert second.control
        assert first.priority > second.priority

    def test_the_reason_counts_what_is_asked_in_words(self) -> None:
        assert "50 tasks: 42 chosen, 8 at random" in command_of(answered(a_situation(), control=8)).reason

    def test_items_on_their_way_are_left_out(self) -> None:
        world = a_world(
            campaign=a_campaign(open_count=1, accepted_count=1),
            undecided=(a_task(1),),
            accepted=(a_task(2, answer="car"),),
        )
        question = question_of(reconcile(a_situation(world=world)))
        assert list(question.excluded) == [f"{DATASET}/items/i1", f"{DATASET}/items/i2"]
        assert question.count == 49

    def test_the_next_request_id_is_another_one(self) -> None:
        world = a_world(
            campaign=a_campaign(accepted_count=20, cancelled_count=30), dataset=a_dataset(train_labelled_count=20)
        )
        assert command_of(answered(a_situation(world=world))).request_id == "u-ask-0-50"

    @pytest.mark.parametrize(
        ("undecided", "labels", "asked"),
        [
            (26, 0, None),  # more than half of the batch is still there
            (25, 0, 25),
            (0, 20, 30),  # only what the next training lacks
            (20, 29, 1),
            (20, 30, None),  # what is under way will do
        ],
    )
    def test_a_batch_is_topped_up_when_half_is_decided_and_only_until_training(
        self, undecided: int, labels: int, asked: int | None
    ) -> None:
        world = a_world(
            campaign=a_campaign(open_count=undecided, accepted_count=labels),
            undecided=tuple(a_task(number) for number in range(undecided)),
            dataset=a_dataset(train_labelled_count=labels),
        )
        step = reconcile(a_situation(world=world))
        assert (step.question.count if step.question else None) == asked
        if asked is None:
            assert step.phase == LoopStatus.LABELLING
            assert f"{labels} of the 50 new labels" in step.message

    def test_nothing_is_asked_while_answers_are_on_their_way_to_the_dataset(self) -> None:
        world = a_world(campaign=a_campaign(accepted_count=50), unsettled=True)
        step = reconcile(a_situation(world=world))
        assert (step.phase, step.question, step.command) == (LoopStatus.LABELLING, None, None)

    @pytest.mark.parametrize(("budget", "replicas", "asked"), [(30, 1, 30), (90, 3, 30), (100, 3, 33)])
    def test_the_budget_is_never_exceeded(self, budget: int, replicas: int, asked: int) -> None:
        world = a_world(campaign=a_campaign(replicas=replicas))
        step = reconcile(a_situation(world=world, policy=a_policy(label_budget=budget, replicas=replicas)))
        assert question_of(step).count == asked

    def test_answers_that_reviewers_sent_back_are_spent_again(self) -> None:
        world = a_world(
            campaign=a_campaign(accepted_count=90, rejection_count=5), dataset=a_dataset(train_labelled_count=0)
        )
        assert question_of(reconcile(a_situation(world=world, policy=a_policy(label_budget=100)))).count == 5

    def test_the_pool_bounds_what_is_asked(self) -> None:
        assert question_of(reconcile(a_situation(world=a_world(dataset=a_dataset(pool_count=7))))).count == 7


class TestTestSide:
    ITEMS = tuple(f"{DATASET}/items/test{number}" for number in range(30))

    def test_half_of_a_batch_is_of_the_test_side_while_its_labels_lack(self) -> None:
        world = a_world(dataset=a_dataset(test_labelled_count=0), unlabelled_test_items=self.ITEMS)
        request = command_of(answered(a_situation(world=world, policy=a_policy(test_labels=100)))).request
        assert isinstance(request, BatchCreateTasksRequest)
        test = [task for task in request.tasks if task.item in self.ITEMS]
        assert (len(test), len(request.tasks)) == (25, 50)
        assert not any(task.pre_annotations or task.control for task in test)

    def test_the_same_test_items_are_drawn_at_every_look(self) -> None:
        world = a_world(dataset=a_dataset(test_labelled_count=0), unlabelled_test_items=self.ITEMS)
        situation = a_situation(world=world)
        assert command_of(answered(situation)).request == command_of(answered(situation)).request

    def test_only_what_lacks_is_asked_and_nothing_twice(self) -> None:
        world = a_world(
            dataset=a_dataset(test_labelled_count=10, train_labelled_count=49),
            campaign=a_campaign(open_count=3, accepted_count=60),
            undecided=tuple(a_task(name) for name in self.ITEMS[:3]),
            accepted=tuple(a_task(name, answer="car") for name in self.ITEMS[3:5]),
            unlabelled_test_items=self.ITEMS,
        )
        request = command_of(answered(a_situation(world=world))).request
        assert isinstance(request, BatchCreateTasksRequest)
        test = {task.item for task in request.tasks if "test side" in task.selection_reason}
        assert len(test) == 5
        assert not test & set(self.ITEMS[:5])

    def test_the_first_training_waits_for_the_test_side(self) -> None:
        undecided = tuple(a_task(name) for name in self.ITEMS[:2])
        world = a_world(
            dataset=a_dataset(test_labelled_count=18, train_labelled_count=60),
            campaign=a_campaign(open_count=2, accepted_count=78),
            undecided=undecided,
            unlabelled_test_items=self.ITEMS,
        )
        step = reconcile(a_situation(world=world))
        assert step.phase == LoopStatus.LABELLING
        assert "2 labels of the test side" in step.message

    def test_a_test_side_that_has_fewer_items_holds_nothing_up(self) -> None:
        world = a_world(dataset=a_dataset(test_labelled_count=3, train_labelled_count=50))
        assert command_of(reconcile(a_situation(world=world))).action == "snapshot"

    def test_later_trainings_do_not_wait_for_the_test_side(self) -> None:
        situation = after_round_one(
            dataset=a_dataset(test_labelled_count=5, train_labelled_count=100), unlabelled_test_items=self.ITEMS
        )
        assert command_of(reconcile(situation)).action == "snapshot"

    def test_a_spent_budget_trains_with_the_test_labels_there_are(self) -> None:
        world = a_world(
            dataset=a_dataset(test_labelled_count=5, train_labelled_count=20),
            campaign=a_campaign(accepted_count=25),
            unlabelled_test_items=self.ITEMS,
        )
        assert command_of(reconcile(a_situation(world=world, policy=a_policy(label_budget=25)))).action == "snapshot"


class TestTraining:
    def test_enough_new_labels_are_frozen_and_the_round_remembers_how_many(self) -> None:
        accepted = (a_task(1, answer="car", ago=30), a_task(2, answer="van", ago=10))
        world = a_world(dataset=a_dataset(train_labelled_count=52), accepted=accepted)
        step = reconcile(a_situation(world=world))
        command = command_of(step)
        assert isinstance(command.request, CreateSnapshotRequest)
        assert (command.request.snapshot_id, command.request_id) == ("vans-r1", "u-snapshot-1")
        assert command.reason == "52 new labels so far, and 50 start a training."
        assert step.round is not None
        assert step.round.round.label_count == 52
        assert step.round.label_time == NOW - timedelta(seconds=10)

    def test_labels_are_counted_from_the_last_training(self) -> None:
        waiting = after_round_one(
            dataset=a_dataset(train_labelled_count=99), undecided=tuple(a_task(n) for n in range(30))
        )
        assert reconcile(waiting).phase == LoopStatus.LABELLING
        due = after_round_one(dataset=a_dataset(train_labelled_count=100))
        assert command_of(reconcile(due)).reason == "50 new labels since version 1, and 50 start a training."

    def test_stragglers_do_not_hold_training_up(self) -> None:
        world = a_world(dataset=a_dataset(train_labelled_count=50), undecided=(a_task(1),))
        assert command_of(reconcile(a_situation(world=world))).action == "snapshot"

    def test_the_last_labels_are_learnt_from_though_they_are_few(self) -> None:
        world = a_world(dataset=a_dataset(train_labelled_count=3, pool_count=0))
        assert "no more are to come" in command_of(reconcile(a_situation(world=world))).reason

    def test_training_names_champion_seed_and_control_curve(self) -> None:
        command = command_of(reconcile(after_round_one(snapshot=a_snapshot(2))))
        assert isinstance(command.request, CreateTrainingRunRequest)
        run = command.request.training_run
        assert command.request.training_run_id == "vans-r2"
        assert (run.snapshot, run.champion, run.seed, run.control_curve) == (NAMES.snapshot(2), version(1), 2, True)
        assert (run.model, run.recipe) == ("projects/acme/models/vans", "projects/acme/recipes/classification")

    def test_an_embedding_model_is_no_champion(self) -> None:
        request = command_of(reconcile(a_situation(world=a_world(snapshot=a_snapshot())))).request
        assert isinstance(request, CreateTrainingRunRequest)
        assert not request.training_run.champion

    def test_the_recipe_follows_the_policy_or_the_kind_of_dataset(self) -> None:
        multi = a_world(snapshot=a_snapshot(), dataset=a_dataset(multi_label=True))
        request = command_of(reconcile(a_situation(world=multi))).request
        assert isinstance(request, CreateTrainingRunRequest)
        assert request.training_run.recipe == "projects/acme/recipes/multilabel"
        own = a_situation(world=multi, policy=a_policy(recipe="projects/acme/recipes/ours"))
        request = command_of(reconcile(own)).request
        assert isinstance(request, CreateTrainingRunRequest)
        assert request.training_run.recipe == "projects/acme/recipes/ours"

    def test_one_concept_alone_postpones_training(self) -> None:
        step = reconcile(a_situation(world=a_world(snapshot=a_snapshot(concepts={"car": 50}))))
        command = command_of(step)
        assert (command.outcome, command.request) == (Outcome.POSTPONED, None)
        assert "car" in command.reason

    def test_after_a_postponed_round_more_labels_are_asked_for(self) -> None:
        postponed = a_round(1, outcome=Outcome.POSTPONED, label_count=50)
        world = a_world(dataset=a_dataset(train_labelled_count=50))
        assert question_of(reconcile(a_situation(world=world, history=a_history(postponed)))).count == 50

    def test_progress_is_told(self) -> None:
        progress = TrainingProgress(phase="head", step=3, step_count=9)
        progress.time_left.FromSeconds(12)
        step = reconcile(trained(run=a_run(2, state=TrainingRun.RUNNING, progress=progress)))
        assert step.phase == LoopStatus.TRAINING
        assert "head, step 3 of 9, about 12 s left" in step.message

    def test_a_failed_run_is_tried_once_more_under_another_name(self) -> None:
        command = command_of(reconcile(trained(run=a_run(2, state=TrainingRun.FAILED, error="out of memory."))))
        assert command.resource == NAMES.run(2, 2) == "projects/acme/trainingRuns/vans-r2-retry1"
        assert command.request_id == "u-train-2-2"
        assert "out of memory" in command.reason

    def test_two_failures_end_the_round_with_the_reason(self) -> None:
        failed = tuple(a_run(2, attempt, TrainingRun.FAILED, error="out of memory.") for attempt in (1, 2))
        situation = trained()
        step = reconcile(replace(situation, world=replace(situation.world, runs=failed)))
        assert command_of(step).outcome is Outcome.FAILED
        assert step.round is not None
        assert "out of memory" in step.round.round.verdict.reason

    def test_a_cancelled_run_is_not_tried_again(self) -> None:
        assert command_of(reconcile(trained(run=a_run(2, state=TrainingRun.CANCELLED)))).outcome is Outcome.FAILED

    def test_after_a_failed_round_the_loop_is_blocked_until_labels_or_policy_change(self) -> None:
        failed = a_round(1, outcome=Outcome.FAILED, label_count=50)
        blocked = a_situation(world=a_world(dataset=a_dataset(train_labelled_count=50)), history=a_history(failed))
        assert reconcile(blocked).phase == LoopStatus.BLOCKED
        labelled = replace(blocked, world=a_world(dataset=a_dataset(train_labelled_count=51)))
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

    def test_a_round_keeps_no_figures_that_grow_with_the_square_of_the_concepts(self) -> None:
        metrics = some_metrics(0.82)
        metrics.confusion.extend([1] * 10_000)
        record = reconcile(trained(run=a_run(2, champion=version(1), comparison=a_comparison(), metrics=metrics))).round
        assert record is not None
        assert record.round.metrics == some_metrics(0.82)

    def test_a_challenger_that_fails_leaves_the_champion_and_ends_the_round(self) -> None:
        worse = a_run(2, champion=version(1), comparison=a_comparison(-0.03))
        step = reconcile(trained(run=worse))
        assert command_of(step).outcome is Outcome.KEPT
        assert "champion stays" in command_of(step).reason
        assert step.round is not None
        assert step.round.round.model_version == version(2)

    def test_loading_is_waited_for(self) -> None:
        loading = a_deployment(version(2), version(1), state=Deployment.LOADING)
        step = reconcile(trained(deployment=loading))
        assert (step.phase, step.command) == (LoopStatus.DEPLOYING, None)

    def test_loading_that_failed_is_tried_again_and_at_last_ends_the_round(self) -> None:
        failed = a_deployment(version(2), version(1), state=Deployment.FAILED, error="bad file")
        situation = trained(deployment=failed)
        first = command_of(reconcile(situation))
        assert first.action == "reload"
        decided = {f"u-reload-2-promote-{number}": NOW for number in range(6)}
        step = reconcile(replace(situation, history=replace(situation.history, decided=decided)))
        assert command_of(step).outcome is Outcome.FAILED
        assert "bad file" in command_of(step).reason

    def test_a_person_who_moved_the_deployment_has_the_last_word(self) -> None:
        situation = trained()
        decided = {"u-promote-2": NOW}
        step = reconcile(replace(situation, history=replace(situation.history, decided=decided)))
        assert (command_of(step).action, command_of(step).outcome) == ("yield", Outcome.KEPT)


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

    def test_the_time_from_label_to_model_is_taken_when_the_model_answers(self) -> None:
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
        assert (command.action, command.outcome, command.resource) == ("turn", Outcome.PROMOTED, LOOP)
        assert step.round is not None
        assert step.round.round.auto_share == 0.75
        assert "75 %" in command.reason

    def test_once_scoring_has_ended_what_the_dataset_never_shows_is_waited_for_no_longer_than_two_minutes(self) -> None:
        situation = self.answering(scored_model_version=version(9), pool_scored_count=800, pool_certain_count=600)
        under_way = replace(situation, now=NOW + timedelta(hours=1))
        assert reconcile(under_way).phase == LoopStatus.SCORING
        ended = a_deployment(version(2), scoring=scored(version(2)))
        waiting = replace(situation, world=replace(situation.world, deployment=ended))
        assert reconcile(waiting).phase == LoopStatus.SCORING
        record = reconcile(waiting).round
        assert record is not None
        history = replace(waiting.history, current=record)
        step = reconcile(replace(waiting, history=history, now=NOW + timedelta(minutes=3)))
        assert command_of(step).outcome is Outcome.PROMOTED
        assert step.round is not None
        assert not step.round.round.HasField("auto_share")  # another model's certainty tells nothing of this one

    def test_what_was_saved_is_the_champions_and_changes_with_it_alone(self) -> None:
        saving = LabelSaving(spent_labels=20)
        situation = self.answering(scored_model_version=version(2), scored_count=ITEMS)
        situation = replace(situation, history=replace(situation.history, label_saving=saving))
        turned = reconcile(situation)
        assert command_of(turned).outcome is Outcome.PROMOTED
        assert not status_of(situation, turned).HasField("label_saving")  # of the new champion nothing is known
        loading = trained(deployment=a_deployment(version(2), version(1), state=Deployment.LOADING))
        loading = replace(loading, history=replace(loading.history, label_saving=saving))
        assert status_of(loading, reconcile(loading)).label_saving == saving

    def test_an_empty_pool_has_no_share(self) -> None:
        step = reconcile(self.answering(scored_model_version=version(2), scored_count=ITEMS, pool_count=0))
        assert step.round is not None
        assert not step.round.round.HasField("auto_share")


class TestEnds:
    def test_a_spent_budget_exhausts_the_loop_and_more_revives_it(self) -> None:
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

    def test_a_pool_of_mere_repeats_exhausts_the_loop(self) -> None:
        situation = after_round_one(selection=SelectItemsResponse())
        assert reconcile(situation).phase == LoopStatus.EXHAUSTED

    def test_a_budget_of_nothing_learns_from_what_is_labelled_already(self) -> None:
        world = a_world(dataset=a_dataset(train_labelled_count=30))
        assert command_of(reconcile(a_situation(world=world, policy=a_policy(label_budget=0)))).action == "snapshot"

    def test_undecided_tasks_are_waited_for_though_the_budget_is_spent(self) -> None:
        situation = after_round_one(campaign=a_campaign(accepted_count=60, open_count=10), undecided=(a_task(1),))
        assert reconcile(replace(situation, policy=a_policy(label_budget=70))).phase == LoopStatus.LABELLING


class TestPause:
    def test_a_paused_loop_commands_and_asks_nothing_but_says_what_it_would(self) -> None:
        asking = replace(a_situation(), paused=True)
        assert (reconcile(asking).question, reconcile(asking).command) == (None, None)
        training = replace(a_situation(world=a_world(snapshot=a_snapshot())), paused=True)
        step = reconcile(training)
        assert (step.command, step.round) == (None, None)
        assert step.message.startswith("Paused; next it would")

    def test_what_runs_goes_on_to_its_record(self) -> None:
        worse = a_run(2, champion=version(1), comparison=a_comparison(-0.03))
        assert command_of(reconcile(replace(trained(run=worse), paused=True))).outcome is Outcome.KEPT


def test_the_same_situation_gives_the_same_step() -> None:
    assert reconcile(trained()) == reconcile(trained())
