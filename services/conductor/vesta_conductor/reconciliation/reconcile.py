"""The reconciliation function: decides the next step from the desired and the actual state. Pure."""

from collections.abc import Callable
from dataclasses import replace

from vesta_conductor.reconciliation.bootstrap_stage import (
    keep_campaign,
    keep_deployment,
    wait_for_embeddings,
    wait_for_items,
)
from vesta_conductor.reconciliation.labelling_stage import label, stay_blocked
from vesta_conductor.reconciliation.state import Situation, Step
from vesta_conductor.reconciliation.training_stage import turn

# Each stage returns what the Loop waits for or does at this stage, or None to continue with the next stage.
STAGES: tuple[Callable[[Situation], Step | None], ...] = (
    wait_for_items,
    keep_campaign,
    keep_deployment,
    wait_for_embeddings,
    turn,
    stay_blocked,
    label,
)


def reconcile(situation: Situation) -> Step:
    """Returns the Loop's phase with a message, and the next command, if any.

    The same situation always returns the same step. It returns the same command, with the same request_id, until the situation shows the
    command's effect. A process that is killed at any point is therefore continued by the next reconciliation.
    """
    step = next(step for stage in STAGES if (step := stage(situation)) is not None)
    if situation.paused and (step.question or (step.command and step.command.request)):
        pause_message = f"Paused. Next step: {step.command.reason if step.command else step.message}"
        return replace(step, message=pause_message, command=None, question=None, round=None)
    if situation.paused:
        return replace(step, message=f"Paused. {step.message}")
    return step
