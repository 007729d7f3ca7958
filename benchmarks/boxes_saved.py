"""The boxes that annotators draw with active selection ÷ with random selection, until a detector has 95 % of full mAP@50.

Each seed splits the images anew into pool and test, because the selection is nearly deterministic. Both arms start with the same random
images, as the default selection does where annotators draw objects. Each further round adds a batch of images: those that the default
selection of the datasets service chooses, or random ones. A detector is then trained on all images so far, in both arms with the same
recipe and after the same numbers of images; see `detector_replay`. The batches grow, so that few trainings tell the whole curve. The boxes
that an arm needs are read from a smooth curve through the trainings of all seeds, with an interval; see `quality_curve`. The ratio can
exceed 1. Run as a program, it prints the rounds of each seed:

    python benchmarks/boxes_saved.py --data FOLDER --seeds 11 12
"""

import argparse
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
from quality_curve import Curve, boxes_needed, ratio_of_boxes
from vesta_contracts.common.v1 import Prediction, TaskType
from vesta_contracts.datasets.v1 import SelectionStrategy
from vesta_datasets.selection.candidates import Candidates, PoolRow
from vesta_datasets.selection.pool_builder import choose
from vesta_datasets.task_types import TASK_TYPES
from vesta_datasets.task_types.uncertainty import Mask

GOAL_SHARE = 0.95
SEEDS = (4, 5, 6)
"""The cold start and the rule of the selection were chosen with BCCD and the seeds 1 to 3."""
IMAGES_MAX = 400
IMAGE_COUNTS = (10, 20, 35, 60)
"""After each round. The first are small: an image can have thirteen boxes, and ten images make a usable detector."""
GOAL_RATIO, FLOOR_RATIO = 0.5, 1.0
FLOOR_RATIO_SCENES = 1.3
"""The ten concepts of the scenes are equally frequent, so that random images are as good. The selection may cost no more than luck does."""
VERSION = "models/detector/versions/newest"


@dataclass(frozen=True)
class Point:
    """A detector of a learning curve: the images and boxes that it was trained on, and its mAP@50."""

    images: int
    boxes: int
    quality: float


@dataclass(frozen=True)
class Outcome:
    """The learning curves of one seed, and the training with all images of the pool."""

    full: Point
    active: list[Point]
    random: list[Point]

    def curve(self, points: Sequence[Point]) -> Curve:
        """Returns the curve of an arm in shares of the full mAP@50."""
        boxes = np.array([point.boxes for point in points], np.float64)
        shares = np.array([point.quality for point in points]) / self.full.quality
        return Curve(boxes, shares, float(self.full.boxes))


def measure(data: Path | None, home: Path) -> Iterator[Figure]:
    """Yields `detection_boxes_ratio` for the images of a folder, if one is given, and for the synthetic scenes.

    Args:
        home: the folder of the scenes.
    """
    with tempfile.TemporaryDirectory() as folder:
        if data is not None:
            measured = outcomes(boxed_images(data, home), Path(folder), SEEDS)
            yield figure_of("detection_boxes_ratio", FLOOR_RATIO, SEEDS, measured)
        measured = outcomes(boxed_images(None, home), Path(folder), SEEDS)
        yield figure_of("detection_boxes_ratio_scenes", FLOOR_RATIO_SCENES, SEEDS, measured)


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
    full = _point(replay, everything, replay.quality(replay.train(everything, calibrated=False)))
    return Outcome(full, active_curve(replay, seed), random_curve(replay, seed))


def active_curve(replay: Replay, seed: int, image_counts: Sequence[int] = IMAGE_COUNTS) -> list[Point]:
    """Returns the learning curve of the default selection, which starts with the images of `random_curve`. Each detector predicts all
    images, also those that are labelled, as a deployment does.
    """
    labelled = np.zeros(len(replay.pool), np.bool_)
    labelled[_order(replay, seed)[: image_counts[0]]] = True
    points: list[Point] = []
    for number, image_count in enumerate(image_counts[1:], start=1):
        detector = replay.train(np.flatnonzero(labelled), calibrated=True)
        points.append(_point(replay, np.flatnonzero(labelled), replay.quality(detector)))
        predictions = replay.predictions(detector, np.arange(len(replay.pool)))
        count = image_count - int(labelled.sum())
        labelled[select(replay, labelled, predictions, count, seed * len(image_counts) + number)] = True
    last = replay.train(np.flatnonzero(labelled), calibrated=False)
    return [*points, _point(replay, np.flatnonzero(labelled), replay.quality(last))]


def random_curve(replay: Replay, seed: int, image_counts: Sequence[int] = IMAGE_COUNTS) -> list[Point]:
    """Returns the learning curve of random selection."""
    drawn = [_order(replay, seed)[:image_count] for image_count in image_counts]
    return [_point(replay, rows, replay.quality(replay.train(rows, calibrated=False))) for rows in drawn]


def _order(replay: Replay, seed: int) -> Rows:
    """Returns all rows in random order."""
    return np.random.default_rng(seed).permutation(len(replay.pool))


def select(replay: Replay, labelled: Mask, predictions: Sequence[Prediction], count: int, seed: int) -> Rows:
    """Returns the rows that the datasets service selects."""
    rows = [
        PoolRow(str(row), bool(held), prediction, example.box_concepts if held else None)
        for row, (held, prediction, example) in enumerate(zip(labelled, predictions, replay.pool, strict=True))
    ]
    chosen = choose(
        Candidates(rows, replay.embeddings, np.ones(len(rows), np.bool_), int((~labelled).sum())),
        strategy=SelectionStrategy.SELECTION_STRATEGY_UNSPECIFIED,
        count=count,
        control_share=0.0,
        seed=seed,
        scored_by=VERSION,
        task=TASK_TYPES[TaskType.TASK_TYPE_DETECTION],
        whole=lambda prediction: prediction,
    )
    return np.array([int(item.item) for item in chosen.items], np.intp)


def _point(replay: Replay, rows: Rows, quality: float) -> Point:
    return Point(len(rows), replay.box_count(rows), quality)


def figure_of(name: str, floor: float, seeds: Sequence[int], measured: Sequence[Outcome]) -> Figure:
    """Returns the ratio of the boxes with its interval, and the ratio of each seed.

    Args:
        floor: the ratio that must not be exceeded.
        seeds: of the outcomes.
    """
    active = [one.curve(one.active) for one in measured]
    drawn = [one.curve(one.random) for one in measured]
    ratio = ratio_of_boxes(active, drawn, GOAL_SHARE)
    return Figure(
        name,
        ratio.value,
        GOAL_RATIO,
        lower=True,
        floor=floor,
        baseline=f"random images, the same recipe, {len(measured)} seeds",
        details={
            "low": ratio.low,
            "high": ratio.high,
            "boxes": boxes_needed(active, GOAL_SHARE),
            "random_boxes": boxes_needed(drawn, GOAL_SHARE),
            "all_boxes": statistics.mean(one.full.boxes for one in measured),
            "full_map50": statistics.mean(one.full.quality for one in measured),
            **{
                f"ratio_of_seed_{seed}": boxes_needed([own], GOAL_SHARE) / boxes_needed([other], GOAL_SHARE)
                for seed, own, other in zip(seeds, active, drawn, strict=True)
            },
        },
    )


def main() -> None:
    """Prints images, boxes and mAP@50 of each round of both arms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with boxes; synthetic scenes if unset")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("VESTA_HOME", ".vesta")))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = outcomes(boxed_images(options.data, options.home), Path(folder), options.seeds)
    for seed, one in zip(options.seeds, measured, strict=True):
        print(f"seed {seed}, {one.full.images} images / {one.full.boxes} boxes: mAP@50 {one.full.quality:.3f}")
        for name, points in (("active", one.active), ("random", one.random)):
            print(f"  {name}: " + ", ".join(f"{p.images} / {p.boxes} → {p.quality:.3f}" for p in points))
    print(figure_of("ratio", FLOOR_RATIO, options.seeds, measured))


if __name__ == "__main__":
    main()
