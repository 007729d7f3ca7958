"""What people are shown of a Loop, from the situation and the step it came to."""

from vesta_contracts.conductor.v1 import LoopStatus

from vesta_conductor.control_arm import LiveAccuracy, live_accuracy
from vesta_conductor.situation import Outcome, Situation, Step


def status_of(s: Situation, step: Step) -> LoopStatus:
    """The status less its rounds, which the store keeps one by one."""
    world = s.world
    live = live_accuracy(
        world.control, model=s.names.model, multi_label=world.dataset is not None and world.dataset.multi_label
    )
    promoted = step.command is not None and step.command.outcome is Outcome.PROMOTED
    status = LoopStatus(
        phase=step.phase,
        message=f"{step.message} {_told(live)}".strip() if live else step.message,
        campaign=world.campaign.name if world.campaign else "",
        deployment=world.deployment.name if world.deployment else "",
        model=s.names.model,
        champion=world.champion,
        champion_metrics=world.stable.metrics if world.stable and world.champion else None,
        labels_spent=s.labels_spent,
        label_saving=step.label_saving if promoted else s.history.label_saving,
    )
    if live is not None:
        status.live_accuracy.CopyFrom(live.estimate)
        status.live_accuracy_count = live.answer_count
    status.reconcile_time.FromDatetime(s.now)
    return status


def _told(live: LiveAccuracy) -> str:
    models = "the newest model" if live.model_count == 1 else f"the last {live.model_count} models together"
    estimate = live.estimate
    return (
        f"Live accuracy of {models}: {100 * estimate.value:.0f} % ({100 * estimate.low:.0f} to {100 * estimate.high:.0f} %) "
        f"in {live.answer_count} blind {'check' if live.answer_count == 1 else 'checks'} of what was unlabelled then."
    )
