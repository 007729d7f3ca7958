"""The learning of a detector: default boxes, the fit, and its calibration by cross-fitting."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from vesta_contracts.training.v1 import Estimate

from vesta_training.example import Array
from vesta_training.features.feature_maps import MapCache
from vesta_training.metrics.detection import mean_precision_50
from vesta_training.metrics.objects import Objects
from vesta_training.models.detector_graph import Selection
from vesta_training.models.graph_layers import Calibration
from vesta_training.recipes.choices import DetectionChoices, MaskChoices
from vesta_training.tasks.assignment import Assignment, Dependencies
from vesta_training.tasks.checkpoints import CheckpointFile
from vesta_training.tasks.detection.boxed_view import BoxedView, crowds_in_view
from vesta_training.tasks.detection.calibrate import calibrate
from vesta_training.tasks.detection.default_boxes import choose_sizes, lay_out
from vesta_training.tasks.detection.detector import Detector, predictions_of
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.loss import detection_loss, masks_loss
from vesta_training.tasks.detection.mask_head import MaskHead
from vesta_training.tasks.detection.mask_targets import mask_targets
from vesta_training.tasks.detection.matching import Matcher
from vesta_training.tasks.detection.network import DetectionHead, Predicted
from vesta_training.tasks.views.cross_fit import Fold, fold_step_count, folds_of
from vesta_training.tasks.views.fit import FitInput, fit, step_count
from vesta_training.tasks.views.parallel_fits import ALONE, ParallelFits, Running
from vesta_training.tasks.views.uncalibrated import NOT_CALIBRATED, uncalibrated, uncalibrated_thresholds
from vesta_training.tasks.views.view_maps import ViewMaps
from vesta_training.tasks.views.views import view_boxes


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The result of cross-fitting.

    Attributes:
        thresholds: of the concepts.
        mean_precision: mAP@50 on the images that were held out, with heads of fewer steps; None if there were none.
        caution: why the scores are not calibrated; empty if they are.
    """

    calibration: Calibration
    thresholds: tuple[float, ...]
    mean_precision: Estimate | None
    caution: str


@dataclass(frozen=True, slots=True)
class Learned:
    """The result of the learning.

    Attributes:
        facts: for the model card.
        held_out: mAP@50 on images that were held out by cross-fitting, with heads of fewer steps; None if there were none.
        caution: why the scores are not calibrated; empty if they are.
    """

    detector: Detector
    facts: Mapping[str, Any]
    held_out: Estimate | None
    caution: str


@dataclass(frozen=True, slots=True)
class Learner:
    """Fits detectors to examples whose maps are cached."""

    assignment: Assignment
    dependencies: Dependencies
    views: ViewMaps

    @property
    def maps(self) -> MapCache:
        """The cached maps."""
        return self.views.cache

    @property
    def choices(self) -> DetectionChoices:
        """The choices of the recipe."""
        return self.assignment.recipe.detection or DetectionChoices()

    @property
    def mask_choices(self) -> MaskChoices | None:
        """The choices of the recipe for masks; None if it learns boxes."""
        return self.assignment.recipe.masks

    def start_folds(self, examples: Sequence[BoxedExample], fits: ParallelFits) -> list["Future[dict[int, Objects]]"]:
        """Starts cross-fitting, if there are enough examples. Each result is what a detector finds in examples that it has not learned
        from, by their positions.
        """
        steps = fold_step_count(len(examples), self.choices)

        def find(fold: Fold[BoxedExample], running: Running) -> dict[int, Objects]:
            detector = self.fit(fold.known, steps, f"fold-{fold.number}", running)
            keys = [self.views.whole(example) for example in fold.held_out]
            return dict(zip(fold.positions, detector.find(fold.held_out, keys, self.maps), strict=True))

        folds = folds_of(examples, self.choices, self.assignment.seed)
        return [fits.start(steps, partial(find, fold)) for fold in folds]

    def start_model(self, examples: Sequence[BoxedExample], fits: ParallelFits) -> "Future[Detector]":
        """Starts the fit to all examples."""
        steps = step_count(len(examples), self.choices)
        return fits.start(steps, partial(self.fit, examples, steps, "model"))

    def hold_out(self, examples: Sequence[BoxedExample], folds: Sequence["Future[dict[int, Objects]]"]) -> HeldOut:
        """Calibrates and measures with the folds, if there are some."""
        concepts = self.assignment.concepts
        thresholds = uncalibrated_thresholds(len(concepts))
        if not folds:
            return HeldOut(uncalibrated(len(concepts)), thresholds, None, NOT_CALIBRATED.format(len(examples)))
        found = {position: objects for fold in folds for position, objects in fold.result().items()}
        in_order = [found[position] for position in range(len(examples))]
        predictions = predictions_of(examples, in_order, concepts, thresholds)
        calibration, thresholds = calibrate(predictions)
        mean_precision = mean_precision_50(predictions, self.assignment.recipe.evaluation, seed=self.assignment.seed)
        return HeldOut(calibration, thresholds, mean_precision, "")

    def learned(self, examples: Sequence[BoxedExample], model: "Future[Detector]", held_out: HeldOut) -> Learned:
        """Returns the result of the learning.

        Args:
            model: see `start_model`.
            held_out: the result of `hold_out` for the same examples.
        """
        calibration = held_out.calibration
        detector = model.result().calibrated(calibration, held_out.thresholds)
        facts = {
            "steps": step_count(len(examples), self.choices),
            "imageCount": len(examples),
            "viewsPerImage": self.views.count,
            **self.facts_of(detector),
            "slopes": list(calibration.slopes),
            "shifts": list(calibration.shifts),
        }
        return Learned(detector, facts, held_out.mean_precision, held_out.caution)

    def facts_of(self, detector: Detector) -> dict[str, Any]:
        """Returns facts about a detector for the model card."""
        return {"defaultBoxesPx": _unique_sizes(detector, self.choices.side_px)}

    def fit(self, examples: Sequence[BoxedExample], steps: int, name: str, running: Running = ALONE) -> Detector:
        """Returns a detector with uncalibrated scores.

        Args:
            name: of the fit in its checkpoint.
        """
        choices, concepts = self.choices, self.assignment.concepts
        images = [self._learned(example) for example in examples]
        sizes = choose_sizes(_sizes(images), choices.side_px, choices.boxes_per_cell, self.assignment.seed)
        defaults = lay_out(sizes, choices.side_px)
        matcher = Matcher(torch.from_numpy(defaults))

        def loss_of(head: DetectionHead, outputs: Predicted, batch: Sequence[BoxedView]) -> torch.Tensor:
            loss = detection_loss(outputs, batch, matcher)
            if head.masks is not None and self.mask_choices is not None:
                loss = loss + self.mask_choices.loss_weight * masks_loss(head.masks, outputs, batch)
            return loss

        head = fit(
            FitInput(
                images=images,
                choices=choices,
                steps=steps,
                seed=self.assignment.seed,
                fingerprint=f"{self.assignment.fingerprint};{self.maps.digest};{name};{len(examples)}",
            ),
            self.maps,
            make_head=self._make_head,
            loss_of=loss_of,
            resumable=CheckpointFile(
                self.dependencies.run_folder / f"detection-{name}.checkpoint", self.dependencies.checkpoints
            ),
            device=self.dependencies.device,
            running=running,
        )
        return Detector(
            head=head,
            defaults=defaults,
            concepts=concepts,
            selection=Selection(choices.score_min, choices.iou_max, choices.objects_max),
            calibration=uncalibrated(len(concepts)),
            thresholds=uncalibrated_thresholds(len(concepts)),
        )

    def _make_head(self) -> DetectionHead:
        choices, masks, count = self.choices, self.mask_choices, len(self.assignment.concepts)
        width = choices.pyramid_channels
        mask_head = MaskHead(width, masks.layers, count if masks.per_concept else 1) if masks is not None else None
        channels = [shape[0] for shape in self.maps.shapes]
        return DetectionHead(channels, width, choices.boxes_per_cell, count, mask_head)

    def _learned(self, example: BoxedExample) -> list[BoxedView]:
        """Returns the views of an example, with their boxes and masks."""
        all_numbers = example.numbers({concept: number for number, concept in enumerate(self.assignment.concepts)})
        learned = []
        for key, view in self.views.views(example):
            all_boxes, visible = view_boxes(example.boxes, view, self.views.side_px)
            crowds = crowds_in_view(all_boxes, example)
            visible &= ~example.is_crowd
            boxes, numbers = all_boxes[visible], all_numbers[visible]
            masks = None
            if example.masks is not None and self.mask_choices is not None:
                generator = np.random.default_rng(int(hashlib.sha256(key.encode()).hexdigest()[:16], 16))
                chosen = np.flatnonzero(visible)[: self.mask_choices.objects_per_view_max]
                if visible.sum() > len(chosen):
                    chosen = np.sort(generator.permutation(np.flatnonzero(visible))[: len(chosen)])
                masks = mask_targets(
                    [example.masks[position] for position in chosen],
                    (example.height_px, example.width_px),
                    all_boxes[chosen],
                    all_numbers[chosen],
                    view,
                    self.views.side_px,
                    generator,
                )
            learned.append(BoxedView(key, boxes, numbers, masks, crowds))
        return learned


def _sizes(images: Sequence[Sequence[BoxedView]]) -> Array:
    """Returns the `(M, 2)` widths and heights of all boxes in all views."""
    boxes = np.concatenate([view.boxes for views in images for view in views])
    sizes: Array = boxes[:, 2:] - boxes[:, :2]
    return sizes


def _unique_sizes(detector: Detector, side_px: int) -> list[list[int]]:
    unique = np.unique(np.rint(detector.defaults[:, 2:] * side_px).astype(int), axis=0)
    return [[int(width), int(height)] for width, height in unique]
