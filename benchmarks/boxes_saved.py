"""The boxes that annotators draw with active selection ÷ with random selection, until a detector has 95 % of full mAP@50.

Each seed splits the images anew into pool and test, because the selection is nearly deterministic. Each round adds a batch of images: those
that the default selection of the datasets service chooses, or random ones. A detector is then trained on all images so far, in both arms
with the same recipe; see `detector_replay`. Both keep their best detector, as the gate does. An arm that does not reach the goal within the
rounds counts with all boxes that it drew. Run as a program, it prints the rounds of each seed:

    python benchmarks/boxes_saved.py --data FOLDER --seeds 11 12
"""

import argparse
import math
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from detection import boxed_images, deal
from detector_replay import Replay, Rows, prepare
from figures import Figure
from photographs import Photographs
from scipy.stats import t
from vesta_contracts.common.v1 import Prediction, TaskType
from vesta_contracts.datasets.v1 import SelectionStrategy
from vesta_datasets.selection.candidates import Candidates, PoolRow
from vesta_datasets.selection.pool import Mask
from vesta_datasets.selection.pool_builder import choose
from vesta_datasets.task_types import TASK_TYPES

GOAL_SHARE = 0.95
SEEDS = (1, 2, 3)
IMAGES_MAX = 400
ROUNDS = 6
IMAGES_PER_ROUND = 20
GOAL_RATIO, FLOOR_RATIO = 0.5, 1.0
VERSION = "models/detector/versions/newest"


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


@dataclass(frozen=True)
class Outcome:
    """The learning curves of one seed, and the mAP@50 with all images of the pool."""

    full: float
    active: list[Point]
    random: list[Point]

    @property
    def costs(self) -> tuple[Cost, Cost]:
        """What active and random selection need."""
        goal = GOAL_SHARE * self.full
        return cost(self.active, goal), cost(self.random, goal)


def measure(data: Path | None, home: Path) -> Iterator[Figure]:
    """Yields `detection_boxes_ratio` for the images of a folder, if one is given, and for the synthetic scenes.

    Args:
        home: the folder of the scenes.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, photographs in image_sets(data, home):
            yield _figure(name, outcomes(photographs, Path(folder), SEEDS))


def image_sets(data: Path | None, home: Path) -> Iterator[tuple[str, Photographs]]:
    """Yields the sets of images with the names of their figures."""
    if data is not None:
        yield "detection_boxes_ratio", boxed_images(data, home)
    yield "detection_boxes_ratio_scenes", boxed_images(None, home)


def outcomes(photographs: Photographs, folder: Path, seeds: Sequence[int]) -> list[Outcome]:
    """Measures both arms with each seed, one seed on each core."""
    dealt = [replace(deal(photographs, seed, IMAGES_MAX), name=f"{photographs.name}-{seed}") for seed in seeds]
    for one in dealt:
        prepare(one, folder, seed=0, threads=os.cpu_count() or 1)
    cores = min(len(seeds), os.cpu_count() or 1)
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as processes:
        return list(processes.map(outcome, dealt, [folder] * len(seeds), seeds))


def outcome(photographs: Photographs, folder: Path, seed: int) -> Outcome:
    """Measures both arms with one thread."""
    replay = prepare(photographs, folder, seed, threads=1)
    everything = np.arange(len(replay.pool))
    full = replay.quality(replay.train(everything, calibrated=False))
    return Outcome(full, active_curve(replay, seed), random_curve(replay, seed))


def active_curve(replay: Replay, seed: int, rounds: int = ROUNDS) -> list[Point]:
    """Returns the learning curve of the default selection, which starts without a model."""
    labelled = np.zeros(len(replay.pool), np.bool_)
    predictions: list[Prediction | None] = [None] * len(replay.pool)
    points = []
    for number in range(rounds):
        labelled[select(replay, labelled, predictions, seed * ROUNDS + number)] = True
        detector = replay.train(np.flatnonzero(labelled), calibrated=True)
        points.append(_point(replay, np.flatnonzero(labelled), replay.quality(detector)))
        free = np.flatnonzero(~labelled)
        for row, prediction in zip(free, replay.predictions(detector, free), strict=True):
            predictions[row] = prediction
    return points


def random_curve(replay: Replay, seed: int, rounds: int = ROUNDS) -> list[Point]:
    """Returns the learning curve of random selection."""
    order = np.random.default_rng(seed).permutation(len(replay.pool))
    drawn = [order[: IMAGES_PER_ROUND * (number + 1)] for number in range(rounds)]
    return [_point(replay, rows, replay.quality(replay.train(rows, calibrated=False))) for rows in drawn]


def select(replay: Replay, labelled: Mask, predictions: Sequence[Prediction | None], seed: int) -> Rows:
    """Returns the rows that the datasets service selects."""
    rows = [PoolRow(str(row), bool(labelled[row]), predictions[row]) for row in range(len(labelled))]
    chosen = choose(
        Candidates(rows, replay.embeddings, np.ones(len(rows), np.bool_), int((~labelled).sum())),
        strategy=SelectionStrategy.SELECTION_STRATEGY_UNSPECIFIED,
        count=IMAGES_PER_ROUND,
        control_share=0.0,
        seed=seed,
        scored_by=VERSION,
        task=TASK_TYPES[TaskType.TASK_TYPE_DETECTION],
        whole=lambda prediction: prediction,
    )
    return np.array([int(item.item) for item in chosen.items], np.intp)


def _point(replay: Replay, rows: Rows, quality: float) -> Point:
    return Point(len(rows), replay.box_count(rows), quality)


def _figure(name: str, measured: Sequence[Outcome]) -> Figure:
    costs = [one.costs for one in measured]
    ratio, low, high = ratio_interval([active.boxes / drawn.boxes for active, drawn in costs])
    images, _, _ = ratio_interval([active.images / drawn.images for active, drawn in costs])
    return Figure(
        name,
        ratio,
        GOAL_RATIO,
        lower=True,
        floor=FLOOR_RATIO,
        baseline=f"random images, the same recipe, {len(costs)} seeds",
        details={
            "low": low,
            "high": high,
            "images_ratio": images,
            "boxes": statistics.mean(active.boxes for active, _ in costs),
            "random_boxes": statistics.mean(drawn.boxes for _, drawn in costs),
            "full_map50": statistics.mean(one.full for one in measured),
            "reached": float(sum(active.reached for active, _ in costs)),
            "random_reached": float(sum(drawn.reached for _, drawn in costs)),
        },
    )


def main() -> None:
    """Prints images, boxes and mAP@50 of each round of both arms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with boxes; synthetic scenes if unset")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("VESTA_HOME", ".vesta")))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args()
    _, photographs = next(image_sets(options.data, options.home))
    with tempfile.TemporaryDirectory() as folder:
        measured = outcomes(photographs, Path(folder), options.seeds)
    for seed, one in zip(options.seeds, measured, strict=True):
        print(f"seed {seed}, all images: mAP@50 {one.full:.3f}")
        for name, points in (("active", one.active), ("random", one.random)):
            print(f"  {name}: " + ", ".join(f"{p.images} / {p.boxes} → {p.quality:.3f}" for p in points))
    print(_figure("ratio", measured))


if __name__ == "__main__":
    main()
