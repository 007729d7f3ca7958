"""The learning of a recipe that fine-tunes: a head on the frozen network of the better start, then the whole network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from vesta_contracts.training.v1 import Estimate

from vesta_training.example import Split
from vesta_training.hardware import CUDA
from vesta_training.metrics.detection import mean_precision_50
from vesta_training.metrics.objects import ObjectPredictions
from vesta_training.progress import Reporter
from vesta_training.recipes.choices import DetectionChoices, DetectionFinetuneChoices
from vesta_training.tasks.assignment import Assignment, Dependencies
from vesta_training.tasks.checkpoints import CheckpointFile
from vesta_training.tasks.detection.calibrate import calibrate
from vesta_training.tasks.detection.detector import predictions_of
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.finetuning.finetune import DetectorTuning, Tuned, finetune
from vesta_training.tasks.detection.learn import Learned
from vesta_training.tasks.detection.starts import Start, figures_of
from vesta_training.tasks.views.fit import step_count
from vesta_training.tasks.views.parallel_fits import parallel_fits
from vesta_training.tasks.views.training import plan

HELD_OUT_MIN = 4
NOTHING_HELD_OUT = (
    "Fine-tuning was skipped: of the {} labelled images, {} have to be held out to choose the best epoch and to calibrate scores, and "
    "twice as many have to remain, both with objects. Annotate more images, or add items to the validation split."
)
# Durations per image at a side of 320 pixels, on one CPU thread and on a GPU.
SECONDS_PER_TUNED_IMAGE = 0.25
SECONDS_PER_TUNED_IMAGE_ON_GPU = 0.01
SIDE_PX = 320


@dataclass(frozen=True, slots=True)
class Parts:
    """The images that the network learns from, and those that are held out."""

    learn: tuple[BoxedExample, ...]
    held_out: tuple[BoxedExample, ...]


def divide(known: Sequence[BoxedExample], choices: DetectionFinetuneChoices, seed: int) -> Parts | None:
    """Holds out the validation split or, if it is empty, a random share of the images; None if there are too few."""
    is_out = np.array([example.split is Split.VALIDATION for example in known], dtype=np.bool_)
    if not is_out.any():
        count = max(HELD_OUT_MIN, round(choices.holdout_share * len(known)))
        is_out[np.random.default_rng(seed).permutation(len(known))[:count]] = True
    learn = tuple(example for example, out in zip(known, is_out, strict=True) if not out)
    held_out = tuple(example for example, out in zip(known, is_out, strict=True) if out)
    has_objects = all(any(example.has_objects for example in part) for part in (learn, held_out))
    enough = len(held_out) >= HELD_OUT_MIN and len(learn) >= 2 * HELD_OUT_MIN
    return Parts(learn, held_out) if enough and has_objects else None


def skipped_reason(image_count: int) -> str:
    """Returns why so few images are not fine-tuned."""
    return NOTHING_HELD_OUT.format(image_count, HELD_OUT_MIN)


def learn_finetuned(
    starts: Sequence[Start],
    parts: Parts,
    assignment: Assignment,
    dependencies: Dependencies,
    report: Reporter,
    missing: str,
) -> tuple[Start, Learned]:
    """Fits a head on each start, and fine-tunes the one that finds the held-out images best. Returns the start that exports the result.

    The held-out images also choose the epoch and calibrate the scores. They are not learned from.

    Args:
        missing: why there is no imported start although the recipe has one; for the model card.
    """
    untunable = [start.untunable for start in starts if start.untunable]
    with parallel_fits(dependencies, report.step) as fits:
        fitted = [(start, start.learner.start_model(parts.learn, fits)) for start in starts if not start.untunable]
        tried = [
            (start, model.result(), _held_out(start, model.result(), parts, assignment)) for start, model in fitted
        ]
    chosen, detector, _ = max(tried, key=lambda one: one[-1].value if one[-1] else 0.0)
    report.begin("finetune")
    tuned = _tune(chosen, detector, parts, assignment, dependencies, report)
    calibration, thresholds = calibrate(tuned.held_out)
    result = tuned.detector.calibrated(tuned.detector.detector.calibrated(calibration, thresholds))
    held_out = _precision(tuned.held_out, assignment)
    facts = {
        "steps": step_count(len(parts.learn), chosen.learner.choices),
        "imageCount": len(parts.learn),
        "heldOutCount": len(parts.held_out),
        "viewsPerImage": chosen.learner.views.count,
        **chosen.learner.facts_of(detector),
        "tunedEpoch": tuned.epoch,
        "heldOutPrecisionByEpoch": [round(value, 4) for value in tuned.precisions],
        "arithmetic": tuned.arithmetic,
        "slopes": list(calibration.slopes),
        "shifts": list(calibration.shifts),
        "starts": figures_of([(start, precision) for start, _, precision in tried], chosen),
        "startMissingReason": "; ".join(filter(None, (missing, *untunable))),
    }
    finished = replace(chosen, export=lambda _, path: result.export(path))
    return finished, Learned(result.detector, facts, held_out, "")


def plan_finetuned(
    choices: DetectionChoices, finetune_choices: DetectionFinetuneChoices, image_count: int, threads: int, device: str
) -> dict[str, float]:
    """Returns the planned duration of each phase in seconds, in order."""
    phases = plan(choices, image_count, threads)
    seconds = SECONDS_PER_TUNED_IMAGE_ON_GPU if device == CUDA else SECONDS_PER_TUNED_IMAGE / threads
    seconds *= finetune_choices.epochs * image_count * (choices.side_px / SIDE_PX) ** 2
    return {"features": phases["features"], "head": phases["head"], "finetune": seconds} | {
        name: phases[name] for name in ("export", "evaluate")
    }


def _held_out(start: Start, detector: Any, parts: Parts, assignment: Assignment) -> Estimate | None:
    """Returns the mAP@50 of a fitted head on the held-out images."""
    keys = [start.learner.views.whole(example) for example in parts.held_out]
    found = detector.find(parts.held_out, keys, start.learner.maps)
    return _precision(predictions_of(parts.held_out, found, assignment.concepts, detector.thresholds), assignment)


def _tune(
    start: Start,
    detector: Any,
    parts: Parts,
    assignment: Assignment,
    dependencies: Dependencies,
    report: Reporter,
) -> Tuned:
    learner = start.learner
    inputs = DetectorTuning(
        start=start.tunable(detector),
        learn=parts.learn,
        held_out=parts.held_out,
        concepts=assignment.concepts,
        choices=assignment.recipe.detection_finetune or DetectionFinetuneChoices(),
        views=learner.views.choices,
        fingerprint=f"{assignment.fingerprint};{learner.maps.digest}",
        seed=assignment.seed,
        device=dependencies.device,
    )
    with dependencies.other_ranks.process_group(inputs) as group:
        return finetune(
            inputs,
            pixels=dependencies.pixels,
            resumable=CheckpointFile(dependencies.run_folder / "finetune.checkpoint", dependencies.checkpoints),
            threads=dependencies.threads,
            stepped=report.step,
            group=group,
        )


def _precision(predictions: ObjectPredictions, assignment: Assignment) -> Estimate | None:
    return mean_precision_50(predictions, assignment.recipe.evaluation, seed=assignment.seed)
