"""The first stages of a Loop: items, a campaign, and a deployment that computes the embeddings for selection."""

from datetime import timedelta

from google.protobuf.field_mask_pb2 import FieldMask
from vesta_contracts.annotation.v1 import Campaign, CreateCampaignRequest, UpdateCampaignRequest
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.serving.v1 import CreateDeploymentRequest, Deployment, UncertaintyPolicy, UpdateDeploymentRequest
from vesta_contracts.training.v1 import CreateTrainingRunRequest, TrainingRun

from vesta_conductor.reconciliation.names import attempt_of, last_segment
from vesta_conductor.reconciliation.reload_backoff import reload_or_give_up
from vesta_conductor.reconciliation.scoring_coverage import enough
from vesta_conductor.reconciliation.state import Command, RoundOutcome, Situation, Step

EMBEDDINGS_WAIT = timedelta(minutes=2)  # for the dataset to contain the embeddings of the deployment
ATTEMPTS_PER_POLICY = 2  # a failed run is retried once; each change of the policy allows as many attempts again


def wait_for_items(situation: Situation) -> Step | None:
    """Waits for a dataset with a taxonomy and at least one item."""
    dataset = situation.observed.dataset
    if dataset is None:
        return Step(
            LoopStatus.BLOCKED,
            f"{situation.policy.dataset} was deleted. Delete this Loop, or create the dataset again.",
        )
    if situation.observed.taxonomy is None:
        return Step(
            LoopStatus.BLOCKED,
            f"{dataset.taxonomy}, the taxonomy of the dataset, was deleted. Set another taxonomy on the dataset.",
        )
    if not dataset.counts.item_count:
        return Step(LoopStatus.WAITING_FOR_ITEMS, "Waits for items: the dataset is empty.")
    return None


def keep_campaign(situation: Situation) -> Step | None:
    """Creates the campaign, and updates it when the policy or the taxonomy changes."""
    desired = _campaign(situation)
    campaign = situation.observed.campaign
    if campaign is None:
        request_id = situation.fresh_id("campaign", situation.history.current.number)
        request = CreateCampaignRequest(
            parent=situation.names.project, campaign_id=situation.names.loop_id, campaign=desired, request_id=request_id
        )
        return Step(
            LoopStatus.EMBEDDING,
            "Creates the campaign.",
            Command(request_id, "open_campaign", "Annotation requires a campaign.", situation.names.campaign, request),
        )
    if campaign.dataset != situation.policy.dataset:
        return Step(
            LoopStatus.BLOCKED,
            f"{campaign.name} belongs to {campaign.dataset}, not to {situation.policy.dataset}. Delete "
            "that campaign, or create a Loop with another id.",
        )
    if campaign.state == Campaign.CLOSED:
        return Step(LoopStatus.BLOCKED, f"{campaign.name} is closed. Set its state to ACTIVE.")
    followed = ["instructions", "concepts", "review_share"]
    if situation.policy.lease_duration is not None:
        followed.append("lease_duration")
    changed = [path for path in followed if getattr(campaign, path) != getattr(desired, path)]
    if not changed:
        return None
    desired.name = campaign.name
    return Step(
        LoopStatus.SELECTING,
        "Updates the campaign.",
        Command(
            situation.request_id("campaign", "changed", campaign.etag),
            "adjust_campaign",
            f"The policy or the taxonomy changed: {', '.join(changed)}.",
            campaign.name,
            UpdateCampaignRequest(campaign=desired, update_mask=FieldMask(paths=changed)),
        ),
    )


def keep_deployment(situation: Situation) -> Step | None:
    """Trains and deploys an embedding model if there is no deployment, and updates the deployment when the policy changes."""
    deployment = situation.observed.deployment
    if deployment is None:
        return _first_deployment(situation)
    if not deployment.stable_version:
        if deployment.state == Deployment.FAILED:
            return reload_or_give_up(situation, f"policy{situation.policy_revision}", LoopStatus.EMBEDDING)
        return Step(LoopStatus.EMBEDDING, f"Loads {deployment.model_version}.")
    return _adjust_deployment(situation, deployment)


def wait_for_embeddings(situation: Situation) -> Step | None:
    """Waits until enough items are embedded before the first selection."""
    if situation.observed.task_count or situation.observed.champion or situation.observed.dataset is None:
        return None
    counts = situation.observed.dataset.counts
    if counts.embedded_count and _embeddings_overdue(situation):
        return None
    if enough(
        counts.embedded_count, counts.item_count, situation.policy.batch_size, finished=_scoring_ended(situation)
    ):
        return None
    return Step(LoopStatus.EMBEDDING, f"Embeds the items: {counts.embedded_count} of {counts.item_count} done.")


def _campaign(situation: Situation) -> Campaign:
    dataset, taxonomy = situation.observed.dataset, situation.observed.taxonomy
    assert dataset is not None
    assert taxonomy is not None
    campaign = Campaign(
        display_name=f"Labels for {situation.names.loop_id}",
        dataset=dataset.name,
        instructions=situation.policy.instructions,
        concepts=[concept.id for concept in taxonomy.concepts if not concept.retired],
        task_type=dataset.task_type,
        annotators_per_task=situation.policy.annotators_per_task,
        review_share=situation.policy.review_share,
        state=Campaign.ACTIVE,
    )
    if situation.policy.lease_duration is not None:
        campaign.lease_duration.FromTimedelta(situation.policy.lease_duration)
    return campaign


def _first_deployment(situation: Situation) -> Step:
    """Deploys the last version that passed the gate if the deployment was deleted, otherwise an embedding model."""
    promoted = [
        record.round.model_version for record in situation.history.ended if record.outcome is RoundOutcome.PROMOTED
    ]
    if promoted:
        return _deploy(
            situation,
            promoted[-1],
            "The deployment was deleted. It is created again with the last version that passed the gate.",
        )
    runs = situation.observed.embedding_runs
    if not runs:
        return _embed(situation, 1, "No model is deployed yet, and the selection of items requires embeddings.")
    run = runs[-1]
    if run.state == TrainingRun.SUCCEEDED:
        return _deploy(situation, run.model_version, "The embedding model is ready.")
    if run.state in (TrainingRun.QUEUED, TrainingRun.RUNNING):
        return Step(LoopStatus.EMBEDDING, f"Creates the embedding model. {run.waiting_reason}".strip())
    why = run.error or "it was cancelled"
    attempt = attempt_of(run.name)
    if attempt < ATTEMPTS_PER_POLICY * situation.policy_revision:
        return _embed(situation, attempt + 1, f"{run.name} created no embedding model: {why}.")
    return Step(
        LoopStatus.BLOCKED,
        f"No embedding model could be created: {why}. To retry, change the policy, or pause and resume the Loop.",
    )


def _embed(situation: Situation, attempt: int, reason: str) -> Step:
    name = situation.names.embedding_run(attempt)
    request_id = situation.fresh_id("embedding", situation.history.current.number, attempt)
    run = TrainingRun(recipe=situation.names.embedding_recipe, model=situation.names.embedding_model)
    request = CreateTrainingRunRequest(
        parent=situation.names.project, training_run_id=last_segment(name), training_run=run, request_id=request_id
    )
    return Step(
        LoopStatus.EMBEDDING, "Creates the embedding model.", Command(request_id, "embed", reason, name, request)
    )


def _deploy(situation: Situation, version: str, reason: str) -> Step:
    request_id = situation.fresh_id("deployment", situation.history.current.number, last_segment(version))
    deployment = Deployment(
        display_name=situation.names.loop_id,
        model_version=version,
        uncertainty=_uncertainty(situation),
        datasets=[situation.policy.dataset],
    )
    request = CreateDeploymentRequest(
        parent=situation.names.project,
        deployment_id=situation.names.loop_id,
        deployment=deployment,
        request_id=request_id,
    )
    return Step(
        LoopStatus.EMBEDDING, "Deploys it.", Command(request_id, "deploy", reason, situation.names.deployment, request)
    )


def _uncertainty(situation: Situation) -> UncertaintyPolicy:
    """Returns the thresholds that the policy sets; the others stay unset."""
    return UncertaintyPolicy(
        score_threshold=situation.policy.score_threshold,
        score_certain=situation.policy.score_certain,
        margin_certain=situation.policy.margin_certain,
        error_rate_max=situation.policy.error_rate_max,
        concept_error_rates_max=situation.policy.concept_error_rates_max,
    )


def _adjust_deployment(situation: Situation, deployment: Deployment) -> Step | None:
    """Adds the Loop's dataset and the policy's thresholds to the deployment. Keeps other values that its owner has set."""
    desired = Deployment(
        name=deployment.name,
        datasets=deployment.datasets,
        uncertainty=deployment.uncertainty,
        etag=deployment.etag,  # the request replaces the whole lists: an entry that the owner adds meanwhile must not be lost
    )
    changed = []
    if situation.policy.dataset not in deployment.datasets:
        desired.datasets.append(situation.policy.dataset)
        changed.append("datasets")
    if situation.policy.concept_error_rates_max:
        desired.uncertainty.concept_error_rates_max.clear()
    desired.uncertainty.MergeFrom(_uncertainty(situation))
    if desired.uncertainty != deployment.uncertainty:
        changed.append("uncertainty")
    if not changed:
        return None
    return Step(
        LoopStatus.EMBEDDING,
        "Updates the deployment.",
        Command(
            situation.request_id("deployment", "changed", deployment.etag),
            "adjust_deployment",
            f"The deployment differs from the policy: {', '.join(changed)}.",
            deployment.name,
            UpdateDeploymentRequest(deployment=desired, update_mask=FieldMask(paths=changed)),
        ),
    )


def _scoring_ended(situation: Situation) -> bool:
    deployment = situation.observed.deployment
    return deployment is not None and scoring_ended(deployment)


def _embeddings_overdue(situation: Situation) -> bool:
    """Whether no more embeddings will come: some items may be unreadable, which matters more in a small dataset."""
    deployment = situation.observed.deployment
    if deployment is None or not scoring_ended(deployment):
        return False
    return situation.now - deployment.update_time.ToDatetime(situation.now.tzinfo) >= EMBEDDINGS_WAIT


def scoring_ended(deployment: Deployment) -> bool:
    """Whether the deployment has scored all items with its stable version."""
    scoring = deployment.scoring
    return scoring.model_version == deployment.stable_version and scoring.scored_count >= scoring.item_count
