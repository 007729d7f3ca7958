"""What a Loop waits for and creates before its first selection: items, a campaign, an embedding model."""

from dataclasses import replace
from datetime import timedelta

import pytest
from conductor_builders import (
    DATASET,
    EMBEDDING,
    ITEMS,
    NAMES,
    NOW,
    a_campaign,
    a_dataset,
    a_deployment,
    a_policy,
    a_situation,
    after_round_one,
    an_observed_state,
    command_of,
    scored,
    version,
)
from vesta_conductor.reconciliation.reconcile import reconcile
from vesta_contracts.annotation.v1 import Campaign, CreateCampaignRequest, UpdateCampaignRequest
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.serving.v1 import CreateDeploymentRequest, Deployment, UpdateDeploymentRequest
from vesta_contracts.training.v1 import CreateTrainingRunRequest, TrainingRun


class TestItems:
    def test_a_loop_whose_dataset_was_deleted_is_blocked_with_a_message(self) -> None:
        step = reconcile(a_situation(observed=an_observed_state(dataset=None)))
        assert step.phase == LoopStatus.BLOCKED
        assert DATASET in step.message

    def test_a_loop_whose_taxonomy_was_deleted_is_blocked(self) -> None:
        assert reconcile(a_situation(observed=an_observed_state(taxonomy=None))).phase == LoopStatus.BLOCKED

    def test_a_loop_waits_for_items_in_an_empty_dataset(self) -> None:
        step = reconcile(a_situation(observed=an_observed_state(dataset=a_dataset(item_count=0))))
        assert step.phase == LoopStatus.WAITING_FOR_ITEMS
        assert step.command is None


class TestCampaign:
    def test_a_campaign_is_created_with_the_policy_and_the_active_concepts(self) -> None:
        policy = a_policy(instructions="Look twice.", annotators_per_task=2, review_share=0.1)
        command = command_of(reconcile(a_situation(observed=an_observed_state(campaign=None), policy=policy)))
        request = command.request
        assert isinstance(request, CreateCampaignRequest)
        assert (command.action, request.campaign_id, request.request_id) == (
            "open_campaign",
            "vans",
            command.request_id,
        )
        assert list(request.campaign.concepts) == ["car", "van"]
        assert (request.campaign.annotators_per_task, request.campaign.review_share) == (2, 0.1)

    def test_a_campaign_of_another_dataset_blocks(self) -> None:
        step = reconcile(
            a_situation(observed=an_observed_state(campaign=a_campaign(dataset="projects/acme/datasets/cats")))
        )
        assert step.phase == LoopStatus.BLOCKED

    def test_a_closed_campaign_blocks(self) -> None:
        assert (
            reconcile(a_situation(observed=an_observed_state(campaign=a_campaign(state=Campaign.CLOSED)))).phase
            == LoopStatus.BLOCKED
        )

    def test_a_changed_policy_is_applied_to_the_campaign(self) -> None:
        command = command_of(reconcile(a_situation(policy=a_policy(instructions="New."))))
        assert isinstance(command.request, UpdateCampaignRequest)
        assert list(command.request.update_mask.paths) == ["instructions"]


class TestEmbedding:
    def test_an_unreadable_item_delays_the_loop_by_at_most_two_minutes(self) -> None:
        waiting = a_situation(observed=an_observed_state(dataset=a_dataset(item_count=10, embedded_count=9)))
        assert reconcile(waiting).phase == LoopStatus.EMBEDDING
        assert reconcile(replace(waiting, now=NOW + timedelta(minutes=3))).phase != LoopStatus.EMBEDDING

    def test_the_embedding_model_is_trained_first(self) -> None:
        command = command_of(reconcile(a_situation(observed=an_observed_state(deployment=None, stable=None))))
        assert isinstance(command.request, CreateTrainingRunRequest)
        assert command.request.training_run_id == "vans-embedding"
        assert command.request.training_run.recipe == "projects/acme/recipes/embedding"
        assert command.request.training_run.model == "projects/acme/models/vans-embedding"

    def test_the_loop_waits_for_the_run_of_the_embedding_model(self) -> None:
        run = TrainingRun(name=NAMES.embedding_run(1), state=TrainingRun.QUEUED, waiting_reason="Another run is first.")
        step = reconcile(a_situation(observed=an_observed_state(deployment=None, stable=None, embedding_runs=(run,))))
        assert step.command is None
        assert "Another run is first." in step.message

    def test_a_failed_run_is_retried_once_and_then_blocks_the_loop_until_the_policy_changes(self) -> None:
        failed = TrainingRun(name=NAMES.embedding_run(1), state=TrainingRun.FAILED, error="no weights")
        once = a_situation(observed=an_observed_state(deployment=None, stable=None, embedding_runs=(failed,)))
        assert command_of(reconcile(once)).resource == NAMES.embedding_run(2)
        again = TrainingRun(name=NAMES.embedding_run(2), state=TrainingRun.FAILED, error="no weights")
        twice = replace(once, observed=replace(once.observed, embedding_runs=(failed, again)))
        assert reconcile(twice).phase == LoopStatus.BLOCKED
        assert "no weights" in reconcile(twice).message
        assert command_of(reconcile(replace(twice, policy_revision=2))).resource == NAMES.embedding_run(3)

    def test_the_embedding_model_is_deployed_with_the_uncertainty_policy(self) -> None:
        run = TrainingRun(name=NAMES.embedding_run(1), state=TrainingRun.SUCCEEDED, model_version=EMBEDDING)
        observed = an_observed_state(deployment=None, stable=None, embedding_runs=(run,))
        request = command_of(reconcile(a_situation(observed=observed, policy=a_policy(score_certain=0.7)))).request
        assert isinstance(request, CreateDeploymentRequest)
        assert request.deployment_id == "vans"
        assert request.deployment.model_version == EMBEDDING
        assert list(request.deployment.datasets) == [DATASET]
        assert request.deployment.uncertainty.score_certain == 0.7

    def test_a_deleted_deployment_is_recreated_with_the_last_champion(self) -> None:
        situation = after_round_one(deployment=None, stable=None)
        request = command_of(reconcile(situation)).request
        assert isinstance(request, CreateDeploymentRequest)
        assert request.deployment.model_version == version(1)

    def test_the_loop_waits_while_the_model_is_loaded(self) -> None:
        loading = a_deployment(EMBEDDING, "", state=Deployment.LOADING)
        step = reconcile(a_situation(observed=an_observed_state(deployment=loading, stable=None)))
        assert (step.phase, step.command) == (LoopStatus.EMBEDDING, None)

    def test_failed_loading_is_retried_with_backoff_and_then_blocks(self) -> None:
        failed = a_deployment(EMBEDDING, "", state=Deployment.FAILED, error="Triton is away")
        situation = a_situation(observed=an_observed_state(deployment=failed, stable=None))
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

    def test_the_dataset_is_added_to_those_of_the_deployment(self) -> None:
        other = f"{DATASET}-old"
        step = reconcile(a_situation(observed=an_observed_state(deployment=a_deployment(datasets=[other]))))
        request = command_of(step).request
        assert isinstance(request, UpdateDeploymentRequest)
        assert list(request.deployment.datasets) == [other, DATASET]
        assert list(request.update_mask.paths) == ["datasets"]

    def test_a_changed_uncertainty_policy_is_applied_to_the_deployment(self) -> None:
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
    def test_the_first_selection_waits_for_embeddings(
        self, embedded: int, items: int, ended: bool, goes_on: bool
    ) -> None:
        scoring = scored(EMBEDDING, ITEMS if ended else 0)
        observed = an_observed_state(
            dataset=a_dataset(item_count=items, embedded_count=embedded), deployment=a_deployment(scoring=scoring)
        )
        step = reconcile(a_situation(observed=observed))
        assert (step.phase != LoopStatus.EMBEDDING) == goes_on
        assert goes_on or f"{embedded} of {items}" in step.message
