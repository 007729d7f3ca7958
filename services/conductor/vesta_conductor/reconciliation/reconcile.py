"""What should happen next, from what is wanted and what is: a pure function, called after every change of the world."""

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

# Each says what holds the Loop up at this stage, or nothing where the next stage may go on.
STAGES: tuple[Callable[[Situation], Step | None], ...] = (
    wait_for_items,
    keep_campaign,
    keep_deployment,
    wait_for_embeddings,
    turn,
    stay_blocked,
    label,
)


def reconcile(s: Situation) -> Step:
    """The Loop's phase in words, and the next command, if any.

    The same situation gives the same step, and a command is given again, with the same request_id, until the situation
    shows that it was obeyed. So whoever is killed at whatever moment, the next look goes on from there.
    """
    step = next(step for stage in STAGES if (step := stage(s)) is not None)
    if s.paused and (step.question or (step.command and step.command.request)):
        held = f"Paused; next it would go on with: {step.command.reason if step.command else step.message}"
        return replace(step, message=held, command=None, question=None, round=None)
    if s.paused:
        return replace(step, message=f"Paused. {step.message}")
    return step
