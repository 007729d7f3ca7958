"""The starts of a detector: the packaged backbone, and an imported detector. The better one on held-out images is chosen."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from vesta_contracts.training.v1 import Estimate, ModelInput

from vesta_training.features.backbone import Backbone, load_network
from vesta_training.models import imported_graph
from vesta_training.models.export import Export
from vesta_training.models.model_file import ModelFile
from vesta_training.progress import Reporter
from vesta_training.recipes.choices import DetectionChoices, Task
from vesta_training.tasks.assignment import Assignment, Dependencies, Pretrained
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.export import export_detector
from vesta_training.tasks.detection.finetuning.tunable import TunableDetector, tunable_backbone
from vesta_training.tasks.detection.imported.export import export_imported
from vesta_training.tasks.detection.imported.learn import ImportedLearner
from vesta_training.tasks.detection.imported.trainable import TrainableNetwork, untrainable_operators
from vesta_training.tasks.detection.imported.tunable import TunableImported
from vesta_training.tasks.detection.learn import Learned, Learner
from vesta_training.tasks.views.parallel_fits import ParallelFits
from vesta_training.tasks.views.view_maps import maps_of, view_maps

PACKAGED = "packaged backbone"


@dataclass(frozen=True, slots=True)
class Start:
    """A start.

    Attributes:
        export: writes the model file of a detector that the learner has fitted.
        tunable: returns such a detector with its network, for fine-tuning.
        facts: of its weights, for the model card.
        untunable: why the network cannot be fine-tuned; empty if it can.
    """

    name: str
    learner: Learner
    export: Callable[[Any, Path], Export]
    tunable: Callable[[Any], TunableDetector]
    facts: Mapping[str, str]
    untunable: str = ""


def starts_of(
    assignment: Assignment,
    dependencies: Dependencies,
    report: Reporter,
    backbone: Backbone,
    known: Sequence[BoxedExample],
) -> list[Start]:
    """Returns the starts of a training, with the maps of the examples. The imported one exists only if the recipe allows it.

    Raises:
        WeightsError: see `load_network`.
    """
    starts = untried_starts(assignment, dependencies, backbone, len(known))
    for start in starts:
        start.learner.views.compute(known, dependencies, report)
    return starts


def start_of(starts: Sequence[Start], model: ModelFile) -> Start:
    """Returns the start that a model was learned from: the one that resizes images as the model, or otherwise the first."""
    is_letterboxed = model.signature.input.resize == ModelInput.LETTERBOX
    resize = "letterbox" if is_letterboxed else "stretch"
    return next((start for start in starts if start.learner.views.resize == resize), starts[0])


def untried_starts(
    assignment: Assignment, dependencies: Dependencies, backbone: Backbone, image_count: int
) -> list[Start]:
    """Returns the starts of a training without the maps of its examples; see `starts_of`."""
    network = load_network(backbone)
    starts = [_packaged(assignment, dependencies, backbone, network, image_count)]
    if assignment.pretrained is not None and assignment.recipe.task is Task.DETECTION:
        starts.append(_imported(assignment, assignment.pretrained, dependencies, backbone, network, image_count))
    return starts


def learn_from_better(
    starts: Sequence[Start], known: Sequence[BoxedExample], missing: str, fits: ParallelFits
) -> tuple[Start, Learned]:
    """Learns from the start with the highest mAP@50 on held-out images; from the first one if none were held out.

    Args:
        missing: why there is no imported start although the recipe has one; for the model card.
    """
    only = starts[0].learner.start_model(known, fits) if len(starts) == 1 else None
    folds = [start.learner.start_folds(known, fits) for start in starts]
    tried = [(start, start.learner.hold_out(known, own)) for start, own in zip(starts, folds, strict=True)]
    chosen, held_out = max(tried, key=lambda one: one[1].mean_precision.value if one[1].mean_precision else 0.0)
    model = only or chosen.learner.start_model(known, fits)
    learned = chosen.learner.learned(known, model, held_out)
    figures = figures_of([(start, result.mean_precision) for start, result in tried], chosen)
    return chosen, replace(learned, facts={**learned.facts, "starts": figures, "startMissingReason": missing})


def figures_of(tried: Sequence[tuple[Start, Estimate | None]], chosen: Start) -> list[dict[str, Any]]:
    """Returns the mAP@50 of each start on held-out images, for the model card."""
    return [
        {
            "start": start.name,
            **start.facts,
            "heldOutMeanPrecision50": precision.value if precision else None,
            "chosen": start is chosen,
        }
        for start, precision in tried
    ]


def _packaged(
    assignment: Assignment,
    dependencies: Dependencies,
    backbone: Backbone,
    network: nn.Module,
    image_count: int,
) -> Start:
    choices = assignment.recipe.detection or DetectionChoices()
    views = view_maps(network, backbone, choices, image_count, dependencies.folder)
    return Start(
        name=PACKAGED,
        learner=Learner(assignment, dependencies, views),
        export=lambda detector, path: export_detector(
            network, detector, backbone, choices.side_px, path, assignment.recipe.task
        ),
        tunable=lambda detector: tunable_backbone(network, detector, choices.side_px, backbone),
        facts={
            "license": backbone.weights_license,
            "source": backbone.weights_source,
            "sha256": backbone.weights_sha256,
        },
    )


def _imported(
    assignment: Assignment,
    pretrained: Pretrained,
    dependencies: Dependencies,
    backbone: Backbone,
    network: nn.Module,
    image_count: int,
) -> Start:
    choices = assignment.recipe.detection or DetectionChoices()
    imported = imported_graph.load_network(pretrained.path, reverses_colours=pretrained.colour_order == "BGR")
    digest = hashlib.sha256(f"{pretrained.digest};{pretrained.colour_order}".encode()).hexdigest()
    side_px = imported.network.side_px
    path = dependencies.folder / f"{digest}.maps{side_px}.onnx"
    graph = imported_graph.imported_maps_graph(imported)
    views = maps_of(graph, digest, side_px, path, choices, image_count, resize="letterbox")
    return Start(
        name=pretrained.name,
        learner=ImportedLearner(assignment, dependencies, views, imported),
        export=lambda detector, to: export_imported(imported, detector, network, backbone, to),
        tunable=lambda detector: TunableImported(
            network=TrainableNetwork(imported),
            detector=detector,
            side_px=side_px,
            imported=imported,
            backbone=backbone,
        ),
        untunable=_untunable(pretrained, imported),
        facts={"license": pretrained.license, "source": pretrained.source, "sha256": pretrained.digest},
    )


def _untunable(pretrained: Pretrained, imported: imported_graph.ImportedNetwork) -> str:
    operators = untrainable_operators(imported)
    if not operators:
        return ""
    return f"{pretrained.name} cannot be fine-tuned, because its network has the operators {', '.join(operators)}"
