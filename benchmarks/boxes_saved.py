"""The boxes that annotators draw with active selection ÷ with random selection, until a detector has 95 % of full mAP@50.

Each seed splits the images anew into pool and test, because the selection is nearly deterministic. A loop labels batches of the pool, and
after each round a second detector is trained with the same recipe on as many random images. Both arms keep their best detector so far, as
the gate does. An arm that does not reach the goal within the rounds counts with all boxes that it drew.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from control import RandomControl
from detection import boxed_images, deal
from figures import Figure
from photographs import Photographs
from report import RoundFigures
from rounds import Rounds
from scipy.stats import t
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import LoopPolicy
from vesta_local.platform import Platform
from world import set_up

GOAL_SHARE = 0.95
SEEDS = (1, 2, 3)
IMAGES_MAX = 400
ROUNDS = 8
LABELS_PER_ROUND = 25
GOAL_RATIO, FLOOR_RATIO = 0.5, 1.0


@dataclass(frozen=True)
class Point:
    """A detector of a learning curve: the images and boxes that it was trained on, and its mAP@50."""

    images: int
    boxes: int
    quality: float


@dataclass(frozen=True)
class Cost:
    """What an arm needs until its detector reaches the goal.

    Attributes:
        reached: False if it did not; the costs are then those of all rounds.
    """

    images: float
    boxes: float
    reached: bool


def cost(curve: Sequence[Point], goal: float) -> Cost:
    """Returns the cost at which the best detector so far first reaches the goal, interpolated between rounds.

    Args:
        curve: at least one point, in order of images.
    """
    before = Point(0, 0, 0.0)
    for point in curve:
        if point.quality >= goal:
            share = (goal - before.quality) / (point.quality - before.quality) if point.quality > before.quality else 1
            return Cost(
                before.images + share * (point.images - before.images),
                before.boxes + share * (point.boxes - before.boxes),
                reached=True,
            )
        before = Point(point.images, point.boxes, max(point.quality, before.quality))
    return Cost(before.images, before.boxes, reached=False)


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Returns the geometric mean of ratios with its 95 % interval (Student's t of the logarithms).

    The interval of a single ratio is unbounded: 0 to infinity.
    """
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.mean(logs)
    if len(logs) < 2:
        return math.exp(mean), 0.0, math.inf
    half = float(t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def measure(owner: Vesta, platform: Platform, data: Path | None) -> Iterator[Figure]:
    """Yields `detection_boxes_ratio`."""
    photographs = boxed_images(data, platform.home.root)
    pairs = [_costs(owner, platform, deal(photographs, seed, IMAGES_MAX)) for seed in SEEDS]
    ratio, low, high = ratio_interval([active.boxes / drawn.boxes for active, drawn in pairs])
    images, _, _ = ratio_interval([active.images / drawn.images for active, drawn in pairs])
    yield Figure(
        "detection_boxes_ratio",
        ratio,
        GOAL_RATIO,
        lower=True,
        floor=FLOOR_RATIO,
        baseline=f"random images, the same recipe, {len(SEEDS)} seeds",
        details={
            "low": low,
            "high": high,
            "images_ratio": images,
            "boxes": statistics.mean(active.boxes for active, _ in pairs),
            "random_boxes": statistics.mean(drawn.boxes for _, drawn in pairs),
            "reached": float(sum(active.reached for active, _ in pairs)),
            "random_reached": float(sum(drawn.reached for _, drawn in pairs)),
        },
    )


def _costs(owner: Vesta, platform: Platform, photographs: Photographs) -> tuple[Cost, Cost]:
    """Runs a loop and its random arm; returns the cost of both."""
    world = set_up(owner, platform.home.inbox, photographs, f"bench-{new_id()}")
    full = RandomControl(owner, world, len(photographs.pool), seed=1).measure(len(photographs.pool)).quality
    if full is None:
        raise RuntimeError("no test image is labelled")
    experts = world.hire_experts(platform.home.addresses("gateway_grpc"), ("ada",), seed=3, makes_mistakes=False)
    control = RandomControl(owner, world, ROUNDS * LABELS_PER_ROUND)
    policy = LoopPolicy(
        label_budget=ROUNDS * LABELS_PER_ROUND, batch_size=LABELS_PER_ROUND, retrain_after=LABELS_PER_ROUND
    )
    rounds = Rounds(owner, world, world.start_loop(policy), experts, control, print).play(ROUNDS)
    active, drawn = curves(rounds)
    return cost(active, GOAL_SHARE * full), cost(drawn, GOAL_SHARE * full)


def curves(rounds: Sequence[RoundFigures]) -> tuple[list[Point], list[Point]]:
    """Returns the learning curves of the loop and of random selection."""
    active = [Point(one.labels, one.objects, one.quality or 0.0) for one in rounds]
    return active, [Point(one.labels, one.random_objects, one.random_quality or 0.0) for one in rounds]
