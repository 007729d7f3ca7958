"""Detection: the quality of trained detectors, the time from the last label to the deployment of the better one, and their speed.

The images are those of a folder with boxes (`data=FOLDER`), or otherwise synthetic scenes with scanned digits. The goals of the quality are
those for the blood cells of BCCD; for other data they say little.
"""

import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import loop
import serving
from control import RandomControl
from figures import Figure
from photographs import Photographs
from pictures import jpegs
from processor_time import await_idle
from rounds import when_measured
from scenes import write_scenes
from task_types import read_data
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.common.v1 import TaskType
from vesta_local.platform import Platform
from world import set_up

FEW_LABELS = 20
SEEDS = (1, 2, 3)
LOOP_IMAGES = 300
TEST_SHARE = 0.25
GOAL_ALL, FLOOR_ALL = 0.88, 0.8
GOAL_FEW, FLOOR_FEW = 0.72, 0.5
GOAL_LOOP_SECONDS, FLOOR_LOOP_SECONDS = 60, 120
GOAL_LATENCY_MS, FLOOR_LATENCY_MS = 30, 60
LATENCY_IMAGES = 60


def boxed_images(folder: Path | None, home: Path) -> Photographs:
    """Returns the images of a folder, or the synthetic scenes in the home folder.

    Raises:
        ValueError: the folder has no boxes.
    """
    name, found = read_data(folder or write_scenes(home / "samples" / "scenes"))
    if found.task_type != TaskType.TASK_TYPE_DETECTION:
        raise ValueError(f"{folder} has the format {name}; the benchmarks of detection need boxes")
    return found


def deal(photographs: Photographs, seed: int, count_max: int | None = None) -> Photographs:
    """Returns the images, or some of them, split at random into pool and test."""
    images = [*photographs.pool, *photographs.test]
    random.Random(seed).shuffle(images)
    images = images[:count_max]
    held_out = max(1, int(TEST_SHARE * len(images)))
    return replace(photographs, pool=images[held_out:], test=images[:held_out])


def measure(owner: Vesta, platform: Platform, data: Path | None) -> Iterator[Figure]:
    """Yields `detection_map50` with all labels, `detection_map50_few_labels`, `detection_loop_seconds`, `detection_latency_ms` and
    `detection_serving_efficiency`.
    """
    photographs = boxed_images(data, platform.home.root)
    yield from _quality(owner, platform, photographs)
    dealt = deal(photographs, seed=0, count_max=LOOP_IMAGES)
    goal = loop.Goal("detection_loop_seconds", GOAL_LOOP_SECONDS, FLOOR_LOOP_SECONDS)
    turned, found = loop.turn(owner, platform, dealt, goal)
    yield from found
    when_measured(owner, turned.loop)  # the learning curve of the last round, which would take processor time
    await_idle(platform)
    yield _latency(owner, turned.deployment)
    yield from serving.measure(owner, platform, turned.deployment, "detection_serving_efficiency", note="")


def _latency(owner: Vesta, deployment: str) -> Figure:
    """The median time of a detector in process on one thread, from JPEG to boxes, with the processor time of the thread.

    Other processes lengthen the first, and hardly the second.
    """
    in_process = serving.InProcess(owner, deployment)
    milliseconds, processor_ms = [], []
    for picture in jpegs(LATENCY_IMAGES, serving.WIDTH_PX, serving.HEIGHT_PX):
        began, processor_began = time.perf_counter(), time.thread_time()
        in_process.answer(picture)
        milliseconds.append(1000 * (time.perf_counter() - began))
        processor_ms.append(1000 * (time.thread_time() - processor_began))
    return Figure(
        "detection_latency_ms",
        statistics.median(milliseconds),
        GOAL_LATENCY_MS,
        lower=True,
        floor=FLOOR_LATENCY_MS,
        details={
            "fastest_ms": min(milliseconds),
            "slowest_ms": max(milliseconds),
            "processor_ms": statistics.median(processor_ms),
        },
    )


def _quality(owner: Vesta, platform: Platform, photographs: Photographs) -> Iterator[Figure]:
    """Trains with the default recipe, on all labels and on a few."""
    world = set_up(owner, platform.home.inbox, photographs, f"bench-{new_id()}")
    whole = RandomControl(owner, world, len(photographs.pool))
    began = time.monotonic()
    all_labels = whole.measure(len(photographs.pool)).quality
    seconds = time.monotonic() - began
    counts = {"labels": float(len(photographs.pool)), "test_images": float(len(photographs.test))}
    if all_labels is not None:
        details = {**counts, "seconds": seconds}
        yield Figure("detection_map50", all_labels, GOAL_ALL, lower=False, floor=FLOOR_ALL, details=details)
    few, times = [], []
    for seed in SEEDS:
        drawn = RandomControl(owner, world, FEW_LABELS, seed=seed)
        began = time.monotonic()
        quality = drawn.measure(FEW_LABELS).quality
        times.append(time.monotonic() - began)
        few += [quality] if quality is not None else []
    if few:
        yield Figure(
            "detection_map50_few_labels",
            statistics.mean(few),
            GOAL_FEW,
            lower=False,
            floor=FLOOR_FEW,
            details={"labels": FEW_LABELS, "seconds": max(times), "lowest": min(few), "highest": max(few)},
        )
