"""Builds the status of a Loop from the situation and the step."""

from vesta_contracts.conductor.v1 import AcceptedErrors, LabelSaving, LoopStatus
from vesta_contracts.datasets.v1 import DatasetCounts
from vesta_contracts.serving.v1 import Deployment
from vesta_contracts.training.v1 import Metrics, ModelVersion

from vesta_conductor.reconciliation.control_arm import LiveAccuracy, accepted_errors, live_accuracy
from vesta_conductor.reconciliation.label_saving import updated
from vesta_conductor.reconciliation.names import version_in_words
from vesta_conductor.reconciliation.state import ObservedState, RoundOutcome, Situation, Step
from vesta_conductor.task_types import task_type_of


def status_of(situation: Situation, step: Step) -> LoopStatus:
    """Returns the status without its rounds, which the store keeps separately."""
    observed = situation.observed
    deployment = observed.deployment or Deployment()
    model = situation.names.model
    live = live_accuracy(observed.control, model=model)
    errors = accepted_errors(
        observed.control, model=model, policy=deployment.uncertainty, version=observed.stable or ModelVersion()
    )
    sentences = (
        step.message,
        _live_accuracy_in_words(live) if live else "",
        _accepted_errors_in_words(errors) if errors else "",
        _nothing_accepted(situation),
        _unmeasured(situation),
    )
    promoted = step.command is not None and step.command.outcome is RoundOutcome.PROMOTED
    status = LoopStatus(
        phase=step.phase,
        message=" ".join(filter(None, sentences)),
        campaign=observed.campaign.name if observed.campaign else "",
        deployment=deployment.name,
        model=model,
        champion=observed.champion,
        champion_metrics=champion_metrics(observed),
        labels_spent=situation.labels_spent,
        label_saving=step.label_saving if promoted else _label_saving(situation),
    )
    if live is not None:
        status.live_accuracy.CopyFrom(live.estimate)
        status.live_accuracy_count = live.answer_count
    if errors is not None:
        status.accepted_errors.CopyFrom(errors)
    status.reconcile_time.FromDatetime(situation.now)
    return status


def _label_saving(situation: Situation) -> LabelSaving | None:
    """Returns the last estimate, with its value if it has been measured in the meantime."""
    history, observed = situation.history, situation.observed
    rounds = (record.round for record in reversed(history.ended))
    return updated(history.label_saving, observed.measured_run, rounds, task_type_of(observed.dataset))


def champion_metrics(observed: ObservedState) -> Metrics | None:
    """Returns the metrics of the classifier that is serving; None if there is none or it was not measured."""
    if observed.stable is None or not observed.champion or not observed.stable.metrics.item_count:
        return None
    return observed.stable.metrics


def _nothing_accepted(situation: Situation) -> str:
    """Returns why no prediction of the deployed model is certain; empty if some are, or if no model is deployed."""
    deployment = situation.observed.deployment
    if deployment is None or not situation.observed.champion or not deployment.HasField("acceptance"):
        return ""
    acceptance = deployment.acceptance
    is_fixed = deployment.uncertainty.HasField("score_certain") or deployment.uncertainty.HasField("margin_certain")
    return "" if is_fixed or acceptance.HasField("margin_min") else acceptance.message


def _unmeasured(situation: Situation) -> str:
    """Returns the reason why no model is measured; empty if one is measured, or may still be."""
    counts = situation.observed.dataset.counts if situation.observed.dataset else DatasetCounts()
    if counts.item_count and not counts.test_item_count:
        return (
            "No item is in the test split, so that models cannot be measured or compared. Add "
            "items to the test split, or use a dataset with a split_policy.test_share above 0."
        )
    if situation.observed.champion and champion_metrics(situation.observed) is None:
        return (
            f"The {task_type_of(situation.observed.dataset).metric} of {version_in_words(situation.observed.champion)} "
            "is unknown: no test item was labelled when it was trained."
        )
    return ""


def _accepted_errors_in_words(errors: AcceptedErrors) -> str:
    rate = errors.error_rate
    found = (
        f"{100 * rate.value:.1f} % ({100 * rate.low:.1f} to {100 * rate.high:.1f} %) of the certain predictions were wrong in "
        f"{errors.answer_count} blind {'check' if errors.answer_count == 1 else 'checks'}"
    )
    if not errors.exceeded:
        return f"{found}."
    return (
        f"Too many predictions are wrong that need no human: {found}, and {100 * errors.error_rate_max:g} % are allowed. New "
        "images may differ from the test split: label newer items of the test split, or set margin_certain to 1 until a better "
        "model is deployed."
    )


def _live_accuracy_in_words(live: LiveAccuracy) -> str:
    models = "the newest model" if live.model_count == 1 else f"the last {live.model_count} models combined"
    estimate = live.estimate
    return (
        f"Live accuracy of {models}: {100 * estimate.value:.0f} % ({100 * estimate.low:.0f} "
        f"to {100 * estimate.high:.0f} %) in {live.answer_count} blind "
        f"{'check' if live.answer_count == 1 else 'checks'} of items that were unlabelled at "
        "the time."
    )
