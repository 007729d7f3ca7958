"""Loading a version again that the deployment could not load: engines come back, so patience pays before a person is called."""

from datetime import timedelta

from google.protobuf.field_mask_pb2 import FieldMask
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.serving.v1 import Deployment, UpdateDeploymentRequest

from vesta_conductor.reconciliation.state import Command, Situation, Step

TRIES_MAX = 6
WAIT_FIRST = timedelta(seconds=5)  # doubled each time: 5 minutes in all


def reload_or_give_up(s: Situation, what: str, phase: LoopStatus.Phase.ValueType) -> Step:
    """The next try at loading the wanted version, or the wait for it, or BLOCKED after the last.

    Args:
        what: tells this failure from others of the same round, for the request_ids.
        phase: what the Loop is about meanwhile.
    """
    deployment = s.world.deployment
    assert deployment is not None
    tried = [
        s.history.decided[key]
        for key in (_key(s, what, number) for number in range(TRIES_MAX))
        if key in s.history.decided
    ]
    told = f"{deployment.model_version} could not be loaded: {deployment.error or 'no reason was given'}."
    if len(tried) == TRIES_MAX:
        return Step(
            LoopStatus.BLOCKED, f"{told} Tried {TRIES_MAX} times. Change the policy, or pause and resume, to try again."
        )
    due = tried[-1] + WAIT_FIRST * 2 ** (len(tried) - 1) if tried else s.now
    if s.now < due:
        return Step(phase, f"{told} Tries again in {round((due - s.now).total_seconds())} s.")
    command = Command(
        _key(s, what, len(tried)),
        "reload",
        f"{told} Try {len(tried) + 1} of {TRIES_MAX}.",
        deployment.name,
        UpdateDeploymentRequest(
            deployment=Deployment(name=deployment.name, model_version=deployment.model_version),
            update_mask=FieldMask(paths=["model_version"]),
        ),
    )
    return Step(phase, told, command)


def _key(s: Situation, what: str, number: int) -> str:
    return s.request_id("reload", s.history.current.number, what, number)
