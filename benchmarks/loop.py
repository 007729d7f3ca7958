"""The time from the last label to the deployment of the better model."""

import statistics
import time
from dataclasses import dataclass

from experts import Experts
from figures import Figure
from photographs import Photographs, read_folder, write_digits
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import GetLoopRequest, LoopPolicy, LoopStatus
from vesta_local.platform import Platform
from world import World, set_up

IMAGES = 1000
ROUNDS = 3
LABELS_PER_ROUND = 60
PATIENCE_SECONDS = 300
POLL_SECONDS = 0.25
"""Without a pause, the requests that look for the better model would take the processor from its training."""


@dataclass(frozen=True)
class Turned:
    """The results of a loop: its project, its name, and the deployment of its champion."""

    world: World
    loop: str
    deployment: str


@dataclass(frozen=True)
class Goal:
    """The name of the figure, with its goal and floor."""

    figure: str
    seconds: float
    seconds_max: float


LOOP_SECONDS = Goal("loop_seconds", 30, 45)


def digits(platform: Platform) -> Photographs:
    """Returns 1,000 scanned digits."""
    found = read_folder(write_digits(platform.home.root / "samples" / "digits"))
    return Photographs("digits", found.pool[:: len(found.pool) // IMAGES][:IMAGES], [])


def turn(
    owner: Vesta, platform: Platform, photographs: Photographs, goal: Goal = LOOP_SECONDS
) -> tuple[Turned, list[Figure]]:
    """Runs a loop; the figure is the median over its rounds.

    The time starts with the last answer, and ends when Predict, called repeatedly through the gateway after the training,
    first returns another model version.

    Raises:
        RuntimeError: no round deployed a better model.
    """
    world = set_up(owner, platform.home.inbox, photographs, f"bench-{new_id()}")
    experts = world.hire_experts(platform.home.addresses("gateway_grpc"), ("ada",), seed=3, makes_mistakes=False)
    loop = world.start_loop(
        LoopPolicy(label_budget=ROUNDS * LABELS_PER_ROUND, batch_size=LABELS_PER_ROUND, retrain_after=LABELS_PER_ROUND)
    )
    picture = photographs.pool[0].path.read_bytes()
    rounds = [_label_to_model(owner, loop, experts, number, picture) for number in range(ROUNDS)]
    better = [seconds for seconds in rounds if seconds is not None]
    if not better:
        raise RuntimeError("no round of the loop brought a better model")
    turned = Turned(world, loop, owner.loops.GetLoop(GetLoopRequest(name=loop)).status.deployment)
    details = {
        "images": float(len(photographs.pool) + len(photographs.test)),
        "slowest_seconds": max(better),
        "rounds": float(len(better)),
    }
    seconds = statistics.median(better)
    return turned, [Figure(goal.figure, seconds, goal.seconds, lower=True, floor=goal.seconds_max, details=details)]


def _label_to_model(owner: Vesta, loop: str, experts: Experts, number: int, picture: bytes) -> float | None:
    """Runs a round to its end. Returns the seconds from the last answer to the deployment of another model; None if
    the champion stays.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    before, last_answer, seconds = "", 0.0, None
    while time.monotonic() < deadline:
        status = owner.loops.GetLoop(GetLoopRequest(name=loop)).status
        if len(status.rounds) > number and status.rounds[number].HasField("end_time"):
            return seconds
        if status.phase == LoopStatus.LABELLING:
            before = before or _version(owner, status.deployment, picture)
            if experts.work(status.campaign):
                last_answer = time.monotonic()
                continue
        elif (
            last_answer
            and seconds is None
            and status.phase != LoopStatus.TRAINING
            and _version(owner, status.deployment, picture) != before
        ):
            seconds = time.monotonic() - last_answer
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"round {number + 1} does not end: {LoopStatus.Phase.Name(status.phase)}, {status.message}")


def _version(owner: Vesta, deployment: str, picture: bytes) -> str:
    return owner.predict(deployment, [picture])[0].model_version
