"""Retries the load of a version that the deployment failed to load, with exponential backoff, because engines may recover."""

from datetime import timedelta

from google.protobuf.field_mask_pb2 import FieldMask
from vesta_common.backoff import exponential_backoff
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.serving.v1 import Deployment, UpdateDeploymentRequest

from vesta_conductor.reconciliation.state import Command, Situation, Step

TRIES_MAX = 6
BACKOFF_FIRST = timedelta(seconds=5)
BACKOFF_MAX = timedelta(minutes=2)  # of one retry; all take less than 3 minutes


def reload_or_give_up(situation: Situation, cause: str, phase: LoopStatus.Phase.ValueType) -> Step:
    """Returns the next attempt to load the wanted version, the wait for it, or BLOCKED after the last attempt.

    Args:
        cause: what the load was for, such as `promote`; part of the request_ids, which differ from those of other loads of the round.
        phase: of the Loop during the retries.
    """
    deployment = situation.observed.deployment
    assert deployment is not None
    attempts = [
        situation.history.decided[key]
        for key in (_key(situation, cause, number) for number in range(TRIES_MAX))
        if key in situation.history.decided
    ]
    failure = f"{deployment.model_version} could not be loaded: {deployment.error or 'no reason was given'}."
    if len(attempts) == TRIES_MAX:
        return Step(
            LoopStatus.BLOCKED,
            f"{failure} All {TRIES_MAX} attempts failed. To retry, change the policy, or pause and resume the Loop.",
        )
    delay = exponential_backoff(len(attempts), BACKOFF_FIRST, BACKOFF_MAX)
    due = attempts[-1] + delay if attempts else situation.now
    if situation.now < due:
        return Step(phase, f"{failure} Next attempt in {round((due - situation.now).total_seconds())} s.")
    command = Command(
        _key(situation, cause, len(attempts)),
        "reload",
        f"{failure} Attempt {len(attempts) + 1} of {TRIES_MAX}.",
        deployment.name,
        UpdateDeploymentRequest(
            deployment=Deployment(name=deployment.name, model_version=deployment.model_version),
            update_mask=FieldMask(paths=["model_version"]),
        ),
    )
    return Step(phase, failure, command)


def _key(situation: Situation, cause: str, number: int) -> str:
    return situation.request_id("reload", situation.history.current.number, cause, number)
