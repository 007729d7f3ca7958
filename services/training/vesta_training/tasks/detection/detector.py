"""A fitted detector during a training: finds objects from cached feature maps, or with its model file from pixels."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vesta_common.media.box_masks import paste
from vesta_common.media.model_input import InputFormat, place
from vesta_common.media.model_signatures import MASKS, input_format
from vesta_contracts.training.v1 import ModelVersion

from vesta_training.example import Array
from vesta_training.features.feature_maps import MapCache, Maps
from vesta_training.features.features import BATCH_SIZE
from vesta_training.features.onnx_graph import STRIDES
from vesta_training.features.runtime import ModelRuntime
from vesta_training.features.sessions import open_session
from vesta_training.metrics.draws import Floats
from vesta_training.metrics.objects import ObjectPredictions, Objects, over_concepts
from vesta_training.models.detector_graph import OBJECTS, Selection, head_graph
from vesta_training.models.graph_layers import Calibration
from vesta_training.models.model_file import ModelFile
from vesta_training.tasks.assignment import Dependencies
from vesta_training.tasks.detection.examples import BoxedExample

if TYPE_CHECKING:
    from vesta_training.tasks.detection.network import DetectionHead


SHARES = InputFormat(1, 1)
"""The frame of objects that are found in cached maps."""


@dataclass(frozen=True, slots=True)
class Detector:
    """A fitted head.

    Attributes:
        defaults: `(A, 4)`; see `default_boxes.lay_out`.
        thresholds: the score of each concept from which an object counts as predicted.
    """

    head: "DetectionHead"
    defaults: Array
    concepts: tuple[str, ...]
    selection: Selection
    calibration: Calibration
    thresholds: tuple[float, ...]

    def calibrated(self, calibration: Calibration, thresholds: tuple[float, ...]) -> "Detector":
        """Returns the detector with other scores and thresholds."""
        return replace(self, calibration=calibration, thresholds=thresholds)

    def find(self, examples: Sequence[BoxedExample], keys: Sequence[str], maps: MapCache) -> list[Objects]:
        """Returns the objects of each example, from its cached maps."""
        return self.find_in_maps(examples, maps.batches(keys), maps.shapes)

    def find_in_maps(
        self, examples: Sequence[BoxedExample], batches: Iterable[Maps], shapes: Sequence[tuple[int, int, int]]
    ) -> list[Objects]:
        """Returns the objects of each example, from batches of maps of `BATCH_SIZE` examples.

        Args:
            shapes: of the maps of an example, by stride.
        """
        model = head_graph(self.head, shapes, self.defaults, self.calibration, self.selection)
        session = open_session(model)
        wanted = [output.name for output in model.graph.output]
        found: list[Objects] = []
        for batch in batches:
            names = [f"stride{stride}" for stride in STRIDES]
            answers = session.run(wanted, dict(zip(names, batch, strict=True)))
            found += [
                objects_of(rows, example, SHARES, *masks)
                for example, rows, *masks in zip(examples[len(found) :], *answers, strict=False)
            ]
        return found


def find_with_file(
    path: Path,
    model: ModelFile,
    examples: Sequence[BoxedExample],
    dependencies: Dependencies,
    concepts: tuple[str, ...],
) -> ObjectPredictions:
    """Returns the predictions of a model file, with the true objects of these concepts. Objects of other concepts are dropped."""
    runtime = ModelRuntime(path, dependencies.device)
    declared = input_format(ModelVersion(signature=model.signature))
    batches = [examples[start : start + BATCH_SIZE] for start in range(0, len(examples), BATCH_SIZE)]

    def find(batch: Sequence[BoxedExample]) -> list[Objects]:
        pixels = np.stack([dependencies.pixels(example.image_sha256, declared) for example in batch])
        answers = runtime.run_all(pixels, [name for name in (OBJECTS, MASKS) if name in runtime.outputs])
        return [
            objects_of(rows, example, declared, *masks) for example, rows, *masks in zip(batch, *answers, strict=True)
        ]

    with ThreadPoolExecutor(dependencies.threads, thread_name_prefix="detect") as pool:
        found = [objects for batch in pool.map(find, batches) for objects in batch]
    own = over_concepts(predictions_of(examples, found, model.concepts, model.thresholds), concepts)
    return predictions_of(examples, own.found, concepts, own.thresholds)


def predictions_of(
    examples: Sequence[BoxedExample], found: Sequence[Objects], concepts: tuple[str, ...], thresholds: tuple[float, ...]
) -> ObjectPredictions:
    """Returns predictions with the true objects of the examples. True objects of other concepts are dropped."""
    return ObjectPredictions(
        items=tuple(example.item for example in examples),
        concepts=concepts,
        truth=tuple(truth_of(example, concepts) for example in examples),
        found=tuple(found),
        thresholds=thresholds,
    )


def truth_of(example: BoxedExample, concepts: Sequence[str]) -> Objects:
    """Returns the true objects of an example, over these concepts."""
    number = {concept: index for index, concept in enumerate(concepts)}
    numbers = np.array([number.get(concept, -1) for concept in example.box_concepts], dtype=np.int64)
    boxes = example.boxes.astype(np.float64) * _size(example)
    known = numbers >= 0
    return Objects(boxes, numbers, np.ones(len(numbers)), example.masks, example.is_crowd).selected(known)


def objects_of(rows: Array, example: BoxedExample, declared: InputFormat, masks: Array | None = None) -> Objects:
    """Returns the objects in the rows `(K, 6)` of the output of a model. Objects beside the image are left out, as in serving.

    Args:
        declared: the input of the model, in whose pixels the rows are.
        masks: `(K, S, S)`, if the model has this output. Objects without pixels are left out, as in serving.
    """
    placement = place(declared, example.width_px, example.height_px)
    boxes = placement.on_image(rows[:, :4])
    kept = np.flatnonzero((rows[:, 4] > 0) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    pasted = None
    if masks is not None:
        frames = placement.around_image(rows[:, :4])
        edges = {row: paste(masks[row], frames[row], placement.area, example.width_px) for row in kept.tolist()}
        kept = kept[np.array([len(edges[row]) > 0 for row in kept.tolist()], dtype=np.bool_)]
        pasted = tuple(edges[row] for row in kept.tolist())
    found = rows[kept]
    return Objects(boxes[kept], found[:, 5].astype(np.int64), found[:, 4].astype(np.float64), pasted)


def _size(example: BoxedExample) -> Floats:
    return np.array([example.width_px, example.height_px] * 2, dtype=np.float64)
