"""The learning of a detector that starts from an imported network."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from vesta_common.media.model_input import InputFormat, place

from vesta_training.example import Array
from vesta_training.features.feature_maps import MapCache, Maps
from vesta_training.features.onnx_graph import STRIDES
from vesta_training.features.sessions import open_session
from vesta_training.metrics.objects import Objects
from vesta_training.models.detector_graph import OBJECTS, Selection
from vesta_training.models.graph_layers import Calibration
from vesta_training.models.imported_graph import ImportedNetwork, imported_head_graph
from vesta_training.tasks.checkpoints import CheckpointFile
from vesta_training.tasks.detection.boxed_view import BoxedView, crowds_in_view
from vesta_training.tasks.detection.detector import objects_of
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.imported.head import ImportedHead
from vesta_training.tasks.detection.imported.loss import imported_loss
from vesta_training.tasks.detection.learn import Learner
from vesta_training.tasks.views.fit import FitInput, fit
from vesta_training.tasks.views.parallel_fits import ALONE, Running
from vesta_training.tasks.views.uncalibrated import uncalibrated, uncalibrated_thresholds
from vesta_training.tasks.views.view_maps import ViewMaps
from vesta_training.tasks.views.views import view_boxes


@dataclass(frozen=True, slots=True)
class ImportedDetector:
    """A fitted class head of an imported network; as `Detector`.

    Attributes:
        side_px: of the input of the network.
    """

    head: ImportedHead
    side_px: int
    concepts: tuple[str, ...]
    selection: Selection
    calibration: Calibration
    thresholds: tuple[float, ...]

    def calibrated(self, calibration: Calibration, thresholds: tuple[float, ...]) -> "ImportedDetector":
        """Returns the detector with other scores and thresholds."""
        return replace(self, calibration=calibration, thresholds=thresholds)

    def find(self, examples: Sequence[BoxedExample], keys: Sequence[str], maps: MapCache) -> list[Objects]:
        """Returns the objects of each example, from its cached maps."""
        return self.find_in_maps(examples, maps.batches(keys), maps.shapes)

    def find_in_maps(
        self, examples: Sequence[BoxedExample], batches: Iterable[Maps], shapes: Sequence[tuple[int, int, int]]
    ) -> list[Objects]:
        """Returns the objects of each example, from batches of maps; see `Detector.find_in_maps`."""
        model = imported_head_graph(self.head, shapes, self.calibration, self.selection)
        session = open_session(model)
        declared = InputFormat(self.side_px, self.side_px, "letterbox")
        pixels = np.array([self.side_px] * 4 + [1, 1], dtype=np.float32)
        found: list[Objects] = []
        for batch in batches:
            names = [f"stride{stride}" for stride in STRIDES]
            rows = session.run([OBJECTS], dict(zip(names, batch, strict=True)))[0] * pixels
            rest = examples[len(found) :]
            found += [objects_of(one, example, declared) for one, example in zip(rows, rest, strict=False)]
        return found


@dataclass(frozen=True, slots=True)
class ImportedLearner(Learner):
    """Fits class heads of an imported network.

    Attributes:
        imported: the network that computed the maps.
    """

    imported: ImportedNetwork

    def fit(  # type: ignore[override]
        self, examples: Sequence[BoxedExample], steps: int, name: str, running: Running = ALONE
    ) -> ImportedDetector:
        """Returns a detector with uncalibrated scores; see `Learner.fit`."""
        choices, concepts, network = self.choices, self.assignment.concepts, self.imported.network
        head = fit(
            FitInput(
                images=[_learned(self.views, example, concepts) for example in examples],
                choices=choices,
                steps=steps,
                seed=self.assignment.seed,
                fingerprint=f"{self.assignment.fingerprint};{self.maps.digest};{name};{len(examples)}",
            ),
            self.maps,
            make_head=lambda: ImportedHead(
                self.imported.known, network.side_px, choices.pyramid_channels, len(concepts)
            ),
            loss_of=lambda _, outputs, batch: imported_loss(outputs, batch),
            resumable=CheckpointFile(
                self.dependencies.run_folder / f"imported-{name}.checkpoint", self.dependencies.checkpoints
            ),
            device=self.dependencies.device,
            running=running,
        )
        return ImportedDetector(
            head=head,
            side_px=network.side_px,
            concepts=concepts,
            selection=Selection(choices.score_min, choices.iou_max, choices.objects_max),
            calibration=uncalibrated(len(concepts)),
            thresholds=uncalibrated_thresholds(len(concepts)),
        )

    def facts_of(self, detector: Any) -> dict[str, Any]:  # noqa: ARG002
        """Returns no further facts: there are no default boxes."""
        return {}


def in_letterbox(boxes: Array, side_px: int, width_px: int, height_px: int) -> Array:
    """Returns boxes `(M, 4)` as shares of a letterboxed input, from shares of the sides of an image."""
    left, top, width, height = place(InputFormat(side_px, side_px, "letterbox"), width_px, height_px).target
    scale, start = np.array([width, height] * 2), np.array([left, top] * 2)
    moved: Array = ((boxes * scale + start) / side_px).astype(np.float32)
    return moved


def _learned(views: ViewMaps, example: BoxedExample, concepts: Sequence[str]) -> list[BoxedView]:
    """Returns the views of an example, with their boxes."""
    numbers = example.numbers({concept: number for number, concept in enumerate(concepts)})
    placed = in_letterbox(example.boxes, views.side_px, example.width_px, example.height_px)
    learned = []
    for key, view in views.views(example):
        boxes, visible = view_boxes(placed, view, views.side_px)
        visible &= ~example.is_crowd
        learned.append(BoxedView(key, boxes[visible], numbers[visible], crowds=crowds_in_view(boxes, example)))
    return learned
