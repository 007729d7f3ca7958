"""Exports a detector as a model file, after verifying its candidates, its masks and its embeddings against torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import nn
from vesta_common.media.model_signatures import MASKS
from vesta_contracts.training.v1 import ModelInput, ObjectSelection

from vesta_training.errors import ExportError
from vesta_training.example import Array
from vesta_training.features.backbone import EMBEDDING_DIMENSION, Backbone
from vesta_training.features.onnx_graph import EMBEDDING, PIXELS
from vesta_training.features.sessions import open_session
from vesta_training.models.detector_graph import (
    CANDIDATE_BOXES,
    CANDIDATE_SCORES,
    OBJECTS,
    detector_graph,
)
from vesta_training.models.export import Export, probe_pixels, torch_embeddings, torch_maps
from vesta_training.models.graph_layers import PROBABILITY_MIN
from vesta_training.models.mask_graph import MASK_SIDE
from vesta_training.models.model_file import write_file
from vesta_training.models.signature import make_signature
from vesta_training.recipes.choices import Task
from vesta_training.tasks.detection.detector import Detector
from vesta_training.tasks.detection.mask_head import mask_probabilities
from vesta_training.tasks.detection.network import decode

if TYPE_CHECKING:
    from vesta_training.tasks.detection.network import DetectionHead

# Of scores, and of coordinates as shares of the image. Summation orders cause differences of about 1e-5.
DIFFERENCE_MAX = 1e-3


def export_detector(
    network: nn.Module,
    detector: Detector,
    backbone: Backbone,
    side_px: int,
    path: Path,
    task: Task = Task.DETECTION,
) -> Export:
    """Writes the model file. Its embeddings are those of the backbone for images of the size of the detector.

    Raises:
        ExportError: its candidates, masks or embeddings differ from those of torch.
    """
    model = _graph(network, detector, side_px)
    onnx.checker.check_model(model, full_check=True)
    selection = detector.selection
    signature = make_signature(
        model,
        ModelInput(height_px=side_px, width_px=side_px, resize=ModelInput.STRETCH, colour_order=ModelInput.RGB),
        ObjectSelection(score_min=selection.score_min, iou_max=selection.iou_max, objects_max=selection.objects_max),
    )
    difference = _difference(network, detector, side_px)
    space = backbone.at(side_px).digest
    digest = write_file(model, task, detector.concepts, detector.thresholds, space, signature, path)
    return Export(path=path, digest=digest, size_bytes=path.stat().st_size, difference_max=difference)


def torch_candidates(
    head: "DetectionHead", detector: Detector, maps: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the boxes `(N, A, 4)`, as shares of the image, and the calibrated scores `(N, A, C)` with torch."""
    logits, offsets, _ = head(maps)
    shares = logits.softmax(dim=2)[..., 1:].clamp(PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    odds = shares.log() - (1 - shares).log()
    slopes, shifts = (torch.tensor(one) for one in (detector.calibration.slopes, detector.calibration.shifts))
    return decode(offsets, torch.from_numpy(detector.defaults)).clamp(0, 1), (odds * slopes + shifts).sigmoid()


def torch_masks(
    head: "DetectionHead", maps: list[torch.Tensor], objects: Array, width_px: int, height_px: int
) -> Array:
    """Returns the masks `(N, K, 28, 28)` of objects `(N, K, 6)` with torch; 0 for padding.

    Args:
        width_px, height_px: of the input, in whose pixels the objects are.
    """
    assert head.masks is not None
    found = torch.from_numpy(objects)
    images, rows = torch.nonzero(found[..., 4] > 0, as_tuple=True)
    boxes = found[images, rows, :4] / torch.tensor([width_px, height_px] * 2)
    with torch.inference_mode():
        finest = head(maps).finest
        known = mask_probabilities(head.masks, finest, images, boxes, found[images, rows, 5].long())
    masks = torch.zeros(*found.shape[:2], MASK_SIDE, MASK_SIDE)
    masks[images, rows] = known
    answer: Array = masks.numpy()
    return answer


def _graph(network: nn.Module, detector: Detector, side_px: int, *, with_candidates: bool = False) -> onnx.ModelProto:
    return detector_graph(
        network,
        detector.head,
        detector.defaults,
        detector.calibration,
        detector.selection,
        side_px=side_px,
        embedding_dimension=EMBEDDING_DIMENSION,
        with_candidates=with_candidates,
    )


def _difference(network: nn.Module, detector: Detector, side_px: int) -> float:
    """Returns the largest difference between the file and torch on the probe images."""
    graph = _graph(network, detector, side_px, with_candidates=True)
    session = open_session(graph)
    probe = probe_pixels()
    has_masks = detector.head.masks is not None
    names = [CANDIDATE_BOXES, CANDIDATE_SCORES, EMBEDDING, *((MASKS, OBJECTS) if has_masks else ())]
    actual: list[Array] = session.run(names, {PIXELS: probe})
    with torch.inference_mode():
        maps = torch_maps(network, side_px, probe)
        boxes, scores = torch_candidates(detector.head, detector, maps)
    expected = [boxes.numpy(), scores.numpy(), torch_embeddings(network, side_px, probe)]
    if has_masks:
        expected.append(torch_masks(detector.head, maps, actual.pop(), probe.shape[2], probe.shape[1]))
    difference = max(float(np.abs(one - other).max()) for one, other in zip(actual, expected, strict=True))
    if not difference <= DIFFERENCE_MAX:
        raise ExportError(
            f"the outputs of the exported file differ by {difference:.2e} from those of the model, the maximum is {DIFFERENCE_MAX}"
        )
    return difference
