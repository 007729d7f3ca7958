"""The learning of a segmenter: the fit, and its calibration by cross-fitting."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vesta_contracts.training.v1 import Estimate

from vesta_training.features.feature_maps import MapCache
from vesta_training.features.features import BATCH_SIZE
from vesta_training.metrics.segmentation import MapPredictions, joined, mean_iou
from vesta_training.models.segmenter_graph import PixelCalibration
from vesta_training.progress import Reporter
from vesta_training.recipes.choices import SegmentationChoices
from vesta_training.tasks.assignment import Assignment, Dependencies
from vesta_training.tasks.checkpoints import CheckpointFile
from vesta_training.tasks.semantic_segmentation.calibrate import (
    TEMPERATURES,
    calibrate_presence,
    temperature_losses,
    uncalibrated_pixels,
    with_presence,
)
from vesta_training.tasks.semantic_segmentation.examples import MaskedExample
from vesta_training.tasks.semantic_segmentation.loss import MappedView, segmentation_loss, square_map
from vesta_training.tasks.semantic_segmentation.network import SegmentationHead
from vesta_training.tasks.semantic_segmentation.segmenter import Segmenter, Vocabulary, united
from vesta_training.tasks.views.cross_fit import Fold, fold_step_count, folds_of
from vesta_training.tasks.views.fit import FitInput, fit, step_count
from vesta_training.tasks.views.parallel_fits import ALONE, ParallelFits, Running, parallel_fits
from vesta_training.tasks.views.uncalibrated import NOT_CALIBRATED, uncalibrated_thresholds
from vesta_training.tasks.views.view_maps import ViewMaps


@dataclass(frozen=True, slots=True)
class Learned:
    """The result of the learning.

    Attributes:
        facts: for the model card.
        held_out: mIoU on images that were held out by cross-fitting, with heads of fewer steps; None if there were none.
        caution: why the scores are not calibrated; empty if they are.
    """

    segmenter: Segmenter
    facts: Mapping[str, Any]
    held_out: Estimate | None
    caution: str


@dataclass(frozen=True, slots=True)
class _Fold:
    """A segmenter, the examples that it has not learned from, and the losses of their pixels, see `temperature_losses`."""

    segmenter: Segmenter
    held_out: tuple[MaskedExample, ...]
    losses: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Learner:
    """Fits segmenters to examples whose maps are cached."""

    assignment: Assignment
    dependencies: Dependencies
    report: Reporter
    views: ViewMaps
    _mapped: dict[str, list[MappedView]] = field(default_factory=dict)

    @property
    def maps(self) -> MapCache:
        """The cached maps."""
        return self.views.cache

    @property
    def choices(self) -> SegmentationChoices:
        """The choices of the recipe."""
        return self.assignment.recipe.segmentation or SegmentationChoices()

    def learn(self, examples: Sequence[MaskedExample]) -> Learned:
        """Learns by cross-fitting: the heads of all folds make the segmenter, and what each predicts for its fold calibrates it.

        With too few examples for folds, the segmenter is one head that learns from all, and its scores are not calibrated.
        """
        self.report.begin("head")
        with parallel_fits(self.dependencies, self.report.step) as fits:
            if folds := self._fit_folds(examples, fits):
                calibration, thresholds, predictions = self._calibrate(folds)
                held_out = mean_iou(predictions, self.assignment.recipe.evaluation, seed=self.assignment.seed)
                segmenter, caution = united([fold.segmenter for fold in folds]).calibrated(calibration, thresholds), ""
                steps = fold_step_count(len(examples), self.choices)
            else:
                steps, held_out, caution = step_count(len(examples), self.choices), None, NOT_CALIBRATED
                model = fits.start(steps, partial(self.fit, examples, steps, "model")).result()
                thresholds = uncalibrated_thresholds(len(self.assignment.concepts))
                segmenter = model.calibrated(model.calibration, thresholds)
        calibration = segmenter.calibration
        facts = {
            "heads": len(segmenter.heads),
            "stepsPerHead": steps,
            "imageCount": len(examples),
            "viewsPerImage": self.views.count,
            "temperature": calibration.temperature,
            "slopes": list(calibration.presence.slopes),
            "shifts": list(calibration.presence.shifts),
        }
        return Learned(segmenter, facts, held_out, caution.format(len(examples)))

    def fit(
        self, examples: Sequence[MaskedExample], steps: int, name: str, running: Running = ALONE, *, number: int = 0
    ) -> Segmenter:
        """Returns a segmenter with uncalibrated scores, which predicts each concept that has pixels.

        Args:
            name: of the fit in its checkpoint.
            number: each has other random weights to start from.
        """
        choices, concepts = self.choices, self.assignment.concepts
        channels = [shape[0] for shape in self.maps.shapes]
        head = fit(
            FitInput(
                images=[self._learned(example) for example in examples],
                choices=choices,
                steps=steps,
                seed=self.assignment.seed + number,
                fingerprint=f"{self.assignment.fingerprint};{self.maps.digest};{name};{len(examples)}",
            ),
            self.maps,
            make_head=lambda: SegmentationHead(channels, choices.width, choices.fine_width, len(concepts)),
            loss_of=lambda _, logits, batch: segmentation_loss(logits, batch, choices.overlap_share),
            resumable=CheckpointFile(
                self.dependencies.run_folder / f"segmentation-{name}.checkpoint", self.dependencies.checkpoints
            ),
            device=self.dependencies.device,
            running=running,
        )
        vocabulary = Vocabulary(concepts, (0.0,) * len(concepts))
        return Segmenter((head,), vocabulary, uncalibrated_pixels(len(concepts)), choices.side_px)

    def _learned(self, example: MaskedExample) -> list[MappedView]:
        """Returns the views of an example, which all fits share."""
        if example.item not in self._mapped:
            numbers = {concept: number for number, concept in enumerate(self.assignment.concepts, start=1)}
            whole = square_map(example, numbers, self.choices.side_px)
            self._mapped[example.item] = [MappedView(key, view, whole) for key, view in self.views.views(example)]
        return self._mapped[example.item]

    def _fit_folds(self, examples: Sequence[MaskedExample], fits: ParallelFits) -> list[_Fold]:
        """Returns the fitted folds; none if there are too few examples."""
        steps = fold_step_count(len(examples), self.choices)

        def fit(fold: Fold[MaskedExample], running: Running) -> _Fold:
            one = self.fit(fold.known, steps, f"fold-{fold.number}", running, number=fold.number)
            return _Fold(one, fold.held_out, temperature_losses(self._classes(one, fold.held_out)))

        started = [
            fits.start(steps, partial(fit, fold)) for fold in folds_of(examples, self.choices, self.assignment.seed)
        ]
        return [fold.result() for fold in started]

    def _calibrate(self, folds: Sequence[_Fold]) -> tuple[PixelCalibration, tuple[float, ...], MapPredictions]:
        """Returns calibration and thresholds, and calibrated predictions of the examples that are held out."""
        temperature = float(TEMPERATURES[np.sum([fold.losses for fold in folds], axis=0).argmin()])
        pixels = uncalibrated_pixels(len(self.assignment.concepts), temperature)
        found = joined([self._find(fold, pixels) for fold in folds])
        presence, thresholds = calibrate_presence(found)
        return PixelCalibration(temperature, presence), thresholds, with_presence(found, presence, thresholds)

    def _find(self, fold: _Fold, pixels: PixelCalibration) -> MapPredictions:
        """Returns what the segmenter of a fold predicts for the examples that are held out."""
        segmenter = fold.segmenter.calibrated(pixels, fold.segmenter.vocabulary.thresholds)
        keys = [self.views.whole(example) for example in fold.held_out]
        return segmenter.find(fold.held_out, keys, self.maps, self.dependencies.threads)

    def _classes(
        self, segmenter: Segmenter, examples: Sequence[MaskedExample]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields the logits and the true classes of images in every fourth cell, in batches."""
        for start in range(0, len(examples), BATCH_SIZE):
            batch = examples[start : start + BATCH_SIZE]
            loaded = [torch.from_numpy(one).float() for one in self.maps.load([self.views.whole(one) for one in batch])]
            with torch.inference_mode():
                logits = segmenter.logits(loaded)
            targets = [self._learned(example)[0].target(logits.shape[2]) for example in batch]
            yield logits[:, :, 1::2, 1::2], torch.from_numpy(np.stack(targets)[:, 1::2, 1::2].astype(np.int64))
