"""A fitted segmenter during a training: predicts maps from cached feature maps, or with its model file from pixels."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vesta_common.media.model_input import InputFormat, place
from vesta_common.media.model_signatures import OVERLAP, PRESENCE, SEGMENTATION, input_format
from vesta_common.media.segmentation_maps import Map, map_on_image, margin_of_map, predicted_map
from vesta_contracts.training.v1 import ModelVersion

from vesta_training.example import Array
from vesta_training.features.feature_maps import MapCache
from vesta_training.features.features import BATCH_SIZE
from vesta_training.features.onnx_graph import FINE_STRIDES
from vesta_training.features.runtime import ModelRuntime
from vesta_training.features.sessions import open_session
from vesta_training.metrics.draws import Numbers
from vesta_training.metrics.segmentation import MapPredictions
from vesta_training.models.model_file import ModelFile
from vesta_training.models.segmenter_graph import PixelCalibration, head_graph
from vesta_training.tasks.assignment import Dependencies
from vesta_training.tasks.semantic_segmentation.examples import MaskedExample

if TYPE_CHECKING:
    import torch

    from vesta_training.tasks.semantic_segmentation.network import SegmentationHead

OUTPUTS = (SEGMENTATION, PRESENCE, OVERLAP)


@dataclass(frozen=True, slots=True)
class Output:
    """What a model computes for an image: the map in pixels of its input, and `(C,)` presence and expected overlap of the concepts."""

    found: Map
    presence: Array
    overlaps: Array


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The concepts of a model, with the score of each from which it is predicted."""

    concepts: tuple[str, ...]
    thresholds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Segmenter:
    """Fitted heads, of which the logits of pixels are the mean."""

    heads: "tuple[SegmentationHead, ...]"
    vocabulary: Vocabulary
    calibration: PixelCalibration
    side_px: int

    def calibrated(self, calibration: PixelCalibration, thresholds: tuple[float, ...]) -> "Segmenter":
        """Returns the segmenter with other probabilities and thresholds."""
        vocabulary = replace(self.vocabulary, thresholds=thresholds)
        return replace(self, calibration=calibration, vocabulary=vocabulary)

    def logits(self, maps: "Sequence[torch.Tensor]") -> "torch.Tensor":
        """Returns the logits `(N, C + 1, S/4, S/4)` for maps by stride, not divided by the temperature."""
        logits: torch.Tensor = sum(head(maps) for head in self.heads) / len(self.heads)
        return logits

    def find(
        self, examples: Sequence[MaskedExample], keys: Sequence[str], maps: MapCache, threads: int = 1
    ) -> MapPredictions:
        """Returns the predictions for the examples, from their cached maps."""
        model = head_graph(self.heads, maps.shapes, self.calibration, self.side_px)
        session = open_session(model)
        names = [f"stride{stride}" for stride in FINE_STRIDES]
        key_of = dict(zip((example.item for example in examples), keys, strict=True))

        def run(batch: Sequence[MaskedExample]) -> list[Output]:
            loaded = maps.load([key_of[example.item] for example in batch])
            rows = session.run(OUTPUTS, dict(zip(names, loaded, strict=True)))
            return [Output(*values) for values in zip(*rows, strict=True)]

        whole = InputFormat(self.side_px, self.side_px)
        return _predictions(examples, run, self.vocabulary, self.vocabulary.concepts, whole, threads)


def united(segmenters: Sequence[Segmenter]) -> Segmenter:
    """Returns the segmenter of the heads of several with the same concepts, with the calibration of the first."""
    return replace(segmenters[0], heads=tuple(head for one in segmenters for head in one.heads))


def find_with_file(
    path: Path,
    model: ModelFile,
    examples: Sequence[MaskedExample],
    dependencies: Dependencies,
    concepts: tuple[str, ...],
) -> MapPredictions:
    """Returns the predictions of a model file.

    Args:
        concepts: over which predictions are compared with the truth. Pixels of other concepts have none.
    """
    runtime = ModelRuntime(path, dependencies.device)
    declared = input_format(ModelVersion(signature=model.signature))

    def run(batch: Sequence[MaskedExample]) -> list[Output]:
        pixels = np.stack([dependencies.pixels(example.image_sha256, declared) for example in batch])
        return [Output(*values) for values in zip(*runtime.run_all(pixels, OUTPUTS), strict=True)]

    vocabulary = Vocabulary(model.concepts, model.thresholds)
    return _predictions(examples, run, vocabulary, concepts, declared, threads=dependencies.threads)


def compared(
    examples: Sequence[MaskedExample],
    outputs: Sequence[Output],
    vocabulary: Vocabulary,
    concepts: tuple[str, ...],
    declared: InputFormat,
) -> MapPredictions:
    """Returns the outputs of a model as predictions, over these concepts."""
    rows = [
        _compared(output, example, vocabulary, concepts, declared)
        for output, example in zip(outputs, examples, strict=True)
    ]
    return _gathered(examples, rows, concepts)


def _predictions(
    examples: Sequence[MaskedExample],
    run: Callable[[Sequence[MaskedExample]], list[Output]],
    vocabulary: Vocabulary,
    concepts: tuple[str, ...],
    declared: InputFormat,
    threads: int,
) -> MapPredictions:
    """Compares the outputs of a model with the truth, image by image."""
    batches = [examples[start : start + BATCH_SIZE] for start in range(0, len(examples), BATCH_SIZE)]

    def compare(batch: Sequence[MaskedExample]) -> list[tuple[Numbers, Array, float]]:
        return [
            _compared(output, example, vocabulary, concepts, declared)
            for output, example in zip(run(batch), batch, strict=True)
        ]

    with ThreadPoolExecutor(threads, thread_name_prefix="segment") as pool:
        rows = [row for rows in pool.map(compare, batches) for row in rows]
    return _gathered(examples, rows, concepts)


def _gathered(
    examples: Sequence[MaskedExample], rows: Sequence[tuple[Numbers, Array, float]], concepts: tuple[str, ...]
) -> MapPredictions:
    counts = np.array([row[0] for row in rows], dtype=np.int64).reshape(len(rows), 3, len(concepts))
    return MapPredictions(
        items=tuple(example.item for example in examples),
        concepts=concepts,
        shared_px=counts[:, 0],
        true_px=counts[:, 1],
        predicted_px=counts[:, 2],
        scores=np.array([row[1] for row in rows], dtype=np.float32).reshape(len(rows), len(concepts)),
        margins=np.array([row[2] for row in rows], dtype=np.float32),
    )


def _compared(
    output: Output, example: MaskedExample, vocabulary: Vocabulary, concepts: tuple[str, ...], declared: InputFormat
) -> tuple[Numbers, Array, float]:
    """Returns `(3, C)` numbers of shared, true and predicted pixels, the scores `(C,)`, and the margin. The map is that of serving."""
    numbers = {concept: number for number, concept in enumerate(concepts, start=1)}
    placement = place(declared, example.width_px, example.height_px)
    thresholds = np.array(vocabulary.thresholds, dtype=np.float32)
    kept, own_scores, _ = predicted_map(map_on_image(output.found, placement), output.presence, thresholds)
    scores = np.zeros(len(concepts), dtype=np.float32)
    renumbered = np.zeros(len(vocabulary.concepts) + 1, dtype=np.uint8)
    for position, concept in enumerate(vocabulary.concepts):
        if concept in numbers:
            renumbered[position + 1] = numbers[concept]
            scores[numbers[concept] - 1] = own_scores[position]
    predicted, truth = renumbered[kept].ravel(), example.map(numbers).ravel()
    shared = predicted[predicted == truth]
    counts = np.stack([np.bincount(one, minlength=len(concepts) + 1)[1:] for one in (shared, truth, predicted)])
    return counts, scores, margin_of_map(own_scores, output.overlaps, thresholds)
