"""The second half of a round: trains on a snapshot, applies the gate, deploys, and waits until the pool is scored."""

from datetime import timedelta

from google.protobuf.field_mask_pb2 import FieldMask
from vesta_common.messages import without
from vesta_contracts.conductor.v1 import GateVerdict, LabelSaving, LoopStatus
from vesta_contracts.datasets.v1 import CreateSnapshotRequest, Snapshot, SplitStatistics
from vesta_contracts.serving.v1 import Deployment, UpdateDeploymentRequest
from vesta_contracts.training.v1 import CreateTrainingRunRequest, Metrics, TrainingRun

from vesta_conductor.reconciliation.bootstrap_stage import scoring_ended
from vesta_conductor.reconciliation.gate import judge
from vesta_conductor.reconciliation.label_saving import label_saving, random_image_objects
from vesta_conductor.reconciliation.names import attempt_of, last_segment, version_in_words
from vesta_conductor.reconciliation.reload_backoff import reload_or_give_up
from vesta_conductor.reconciliation.round_updates import with_updates
from vesta_conductor.reconciliation.scoring_coverage import enough
from vesta_conductor.reconciliation.state import Command, RoundOutcome, RoundRecord, Situation, Step
from vesta_conductor.task_types import task_type_of

ATTEMPTS_MAX = 2  # trainings per round
SCORES_WAIT = timedelta(minutes=2)  # for the dataset to contain the scores; some items may never be scored


def take_snapshot(situation: Situation, reason: str) -> Step:
    """Creates the round's snapshot, which begins its training."""
    assert situation.observed.dataset is not None
    name = situation.names.snapshot(situation.history.current.number)
    request_id = situation.fresh_id("snapshot", situation.history.current.number)
    number = situation.history.current.number
    request = CreateSnapshotRequest(
        parent=situation.policy.dataset,
        snapshot_id=last_segment(name),
        snapshot=Snapshot(display_name=f"Round {number} of {situation.names.loop_id}"),
        request_id=request_id,
    )
    label_times = [task.update_time.ToDatetime(situation.now.tzinfo) for task in situation.observed.accepted]
    return Step(
        LoopStatus.TRAINING,
        "Creates a snapshot of the labelled items.",
        Command(request_id, "snapshot", reason, name, request),
        round=with_updates(
            situation.history.current,
            label_time=max(label_times, default=situation.now),
            snapshot=name,
            label_count=situation.observed.dataset.counts.train_labelled_count,
        ),
    )


def turn(situation: Situation) -> Step | None:
    """Continues the round's training, if it has begun."""
    snapshot = situation.observed.snapshot
    if snapshot is None:
        return None
    current = _with_snapshot(situation, snapshot)
    if not situation.observed.runs:
        return _too_few_concepts(situation, current, snapshot) or _train(
            situation, current, 1, "The snapshot is ready."
        )
    run = situation.observed.runs[-1]
    current = with_updates(current, training_run=run.name)
    match run.state:
        case TrainingRun.SUCCEEDED:
            return _judge(situation, current, run)
        case TrainingRun.FAILED if attempt_of(run.name) < ATTEMPTS_MAX:
            reason = f"{run.name} failed: {run.error} It is retried once."
            return _train(situation, current, attempt_of(run.name) + 1, reason)
        case TrainingRun.FAILED | TrainingRun.CANCELLED:
            return _give_up(situation, current, run)
        case _:
            return Step(LoopStatus.TRAINING, _progress(run), round=current)


def _with_snapshot(situation: Situation, snapshot: Snapshot) -> RoundRecord:
    """Returns the round with the snapshot's values, which are not stored yet if the process was killed.

    The snapshot may contain more labels than the dataset had when the snapshot was requested.
    """
    current = situation.history.current
    return with_updates(
        current,
        label_time=current.label_time or snapshot.create_time.ToDatetime(situation.now.tzinfo),
        snapshot=snapshot.name,
        label_count=_train_side(snapshot).labelled_count,
        control_label_count=snapshot.statistics.control_count,
        object_count=_train_side(snapshot).object_count,
        random_image_objects=random_image_objects(snapshot.statistics),
    )


def _train_side(snapshot: Snapshot) -> SplitStatistics:
    return next((split for split in snapshot.statistics.splits if split.split == "TRAIN"), SplitStatistics())


def _too_few_concepts(situation: Situation, current: RoundRecord, snapshot: Snapshot) -> Step | None:
    """Ends the round if all labels are of one concept: more labels are needed."""
    seen = [concept for concept, count in _train_side(snapshot).concept_counts.items() if count]
    concepts_min = task_type_of(situation.observed.dataset).concepts_min
    if len(seen) >= concepts_min:
        return None
    situation_so_far = f"all labels so far are {seen[0]}" if seen else "no label so far has a concept"
    reason = f"Training requires labels of {concepts_min} or more concepts, but {situation_so_far}. More labels are required first."
    return _end(
        situation, with_updates(current, verdict=GateVerdict(reason=reason)), "postpone", reason, RoundOutcome.POSTPONED
    )


def _train(situation: Situation, current: RoundRecord, attempt: int, reason: str) -> Step:
    assert situation.observed.dataset is not None
    name = situation.names.run(current.number, attempt)
    request_id = situation.fresh_id("train", current.number, attempt)
    run = TrainingRun(
        snapshot=current.round.snapshot,
        recipe=situation.policy.recipe or situation.names.recipe(task_type_of(situation.observed.dataset).recipe),
        model=situation.names.model,
        champion=situation.observed.champion,
        control_curve=True,
        seed=current.number,
    )
    request = CreateTrainingRunRequest(
        parent=situation.names.project, training_run_id=last_segment(name), training_run=run, request_id=request_id
    )
    return Step(
        LoopStatus.TRAINING,
        f"Starts training on {current.round.label_count} labels.",
        Command(request_id, "train", reason, name, request),
        round=with_updates(current, training_run=name),
    )


def _progress(run: TrainingRun) -> str:
    if run.state == TrainingRun.QUEUED or run.waiting_reason:
        return f"Waits for the training to start. {run.waiting_reason}".strip()
    progress = run.progress
    step = f", step {progress.step} of {progress.step_count}" if progress.step_count else ""
    remaining = (
        f", about {round(progress.time_left.ToTimedelta().total_seconds())} s left"
        if progress.HasField("time_left")
        else ""
    )
    return f"Trains: {progress.phase or 'starting'}{step}{remaining}."


def _give_up(situation: Situation, current: RoundRecord, run: TrainingRun) -> Step:
    why = f"{run.name} was cancelled." if run.state == TrainingRun.CANCELLED else f"{run.name} failed: {run.error}"
    return _end(situation, with_updates(current, verdict=GateVerdict(reason=why)), "give_up", why, RoundOutcome.FAILED)


def _judge(situation: Situation, current: RoundRecord, run: TrainingRun) -> Step:
    comparison = run.comparison if run.HasField("comparison") else None
    verdict = judge(
        situation.policy.gate,
        run.metrics,
        run.champion,
        comparison,
        run.comparison_missing_reason,
        task_type=task_type_of(situation.observed.dataset),
    )
    current = with_updates(current, model_version=run.model_version, verdict=verdict)
    if run.metrics.item_count:
        current = with_updates(current, metrics=_stored_metrics(run.metrics))
    saving = _saving(situation, current, run)
    if not verdict.passed:
        return _end(situation, current, "keep_champion", verdict.reason, RoundOutcome.KEPT)
    return _deploy(situation, current, saving)


def _stored_metrics(metrics: Metrics) -> Metrics:
    """Returns the metrics that a round and its event contain.

    Leaves out fields that are long or grow with the square of the number of concepts. The model version has all metrics.
    """
    return without(metrics, "confusion", "reliability")


def _saving(situation: Situation, current: RoundRecord, run: TrainingRun) -> LabelSaving | None:
    """Returns the label saving of a challenger that passed the gate."""
    if not current.round.verdict.passed:
        return None
    return label_saving(run, current.round, task_type_of(situation.observed.dataset))


def _deploy(situation: Situation, current: RoundRecord, saving: LabelSaving | None) -> Step:
    deployment, challenger = situation.observed.deployment, current.round.model_version
    assert deployment is not None
    request_id = situation.request_id("promote", current.number)
    if deployment.model_version != challenger and request_id not in situation.history.decided:
        request = UpdateDeploymentRequest(
            deployment=Deployment(name=deployment.name, model_version=challenger),
            update_mask=FieldMask(paths=["model_version"]),
        )
        command = Command(request_id, "promote", current.round.verdict.reason, deployment.name, request)
        return Step(
            LoopStatus.DEPLOYING,
            f"Deploys {version_in_words(challenger)}.",
            command,
            round=current,
        )
    if deployment.model_version != challenger:
        reason = f"The deployment was changed to {deployment.model_version} by another client. That version is kept."
        return _end(situation, current, "yield", reason, RoundOutcome.KEPT)
    if deployment.stable_version == challenger:
        return _wait_for_scores(situation, current, saving)
    if deployment.state == Deployment.FAILED:
        step = reload_or_give_up(situation, "promote", LoopStatus.DEPLOYING)
        if step.phase == LoopStatus.BLOCKED:
            return _end(situation, current, "give_up", step.message, RoundOutcome.FAILED)
        return Step(step.phase, step.message, step.command, round=current)
    return Step(LoopStatus.DEPLOYING, f"Loads {version_in_words(challenger)}.", round=current)


def _wait_for_scores(situation: Situation, current: RoundRecord, saving: LabelSaving | None) -> Step:
    dataset, deployment, challenger = (
        situation.observed.dataset,
        situation.observed.deployment,
        current.round.model_version,
    )
    assert dataset is not None
    assert deployment is not None
    if not current.round.HasField("label_to_model"):
        since = current.label_time or situation.now
        current = with_updates(current, label_to_model=max(situation.now - since, timedelta(0)))
    counts = dataset.counts
    by_challenger = counts.scored_model_version == challenger  # another deployment may score the same dataset
    scored = counts.scored_count if by_challenger else 0
    ended = scoring_ended(deployment)
    answers_since = (current.label_time or situation.now) + current.round.label_to_model.ToTimedelta()
    overdue = ended and situation.now - answers_since >= SCORES_WAIT
    if not overdue and not enough(scored, counts.item_count, situation.policy.batch_size, finished=ended):
        message = (
            f"{version_in_words(challenger).capitalize()} is deployed and scores the items: "
            f"{scored} of {counts.item_count} done."
        )
        return Step(LoopStatus.SCORING, message, round=current)
    tagged = ""
    if by_challenger and counts.pool_scored_count:
        share = counts.pool_certain_count / counts.pool_scored_count
        current = with_updates(current, auto_share=share)
        tagged = f" It predicts {100 * share:.0f} % of the pool with certainty."
    return _end(
        situation,
        current,
        "turn",
        f"{version_in_words(challenger).capitalize()} is deployed. {current.round.verdict.reason}{tagged}",
        RoundOutcome.PROMOTED,
        saving,
    )


def _end(
    situation: Situation,
    current: RoundRecord,
    action: str,
    reason: str,
    outcome: RoundOutcome,
    saving: LabelSaving | None = None,
) -> Step:
    """Ends the round. The next reconciliation begins another."""
    command = Command(
        situation.request_id(action, current.number), action, reason, situation.names.loop, outcome=outcome
    )
    return Step(LoopStatus.SELECTING, reason, command, round=current, label_saving=saving)
