"""Exports a detector with an imported network as a model file, after verifying its candidates and its embeddings against torch."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from vesta_contracts.training.v1 import ModelInput, ObjectSelection

from vesta_training.errors import ExportError
from vesta_training.example import Array
from vesta_training.features.backbone import EMBEDDING_DIMENSION, Backbone
from vesta_training.features.onnx_graph import EMBEDDING, PIXELS, STRIDES
from vesta_training.features.sessions import open_session
from vesta_training.models.detector_graph import CANDIDATE_BOXES, CANDIDATE_SCORES
from vesta_training.models.export import Export, probe_pixels, torch_embeddings
from vesta_training.models.graph_layers import PROBABILITY_MIN
from vesta_training.models.imported_graph import (
    ImportedNetwork,
    imported_detector_graph,
    imported_maps_graph,
)
from vesta_training.models.model_file import write_file
from vesta_training.models.signature import make_signature
from vesta_training.recipes.choices import Task
from vesta_training.tasks.detection.export import DIFFERENCE_MAX
from vesta_training.tasks.detection.imported.learn import ImportedDetector


def letterboxed_embedding_digest(backbone: Backbone) -> str:
    """Identifies the embeddings of letterboxed images, which differ from those of stretched ones."""
    return hashlib.sha256(f"{backbone.digest};letterbox".encode()).hexdigest()


def export_imported(
    imported: ImportedNetwork, detector: ImportedDetector, embedder: nn.Module, backbone: Backbone, path: Path
) -> Export:
    """Writes the model file.

    Args:
        embedder: the network of the embedding.

    Raises:
        ExportError: its candidates or embeddings differ from those of torch.
    """
    model = _graph(imported, detector, embedder, backbone)
    onnx.checker.check_model(model, full_check=True)
    side_px, selection = imported.network.side_px, detector.selection
    signature = make_signature(
        model,
        ModelInput(height_px=side_px, width_px=side_px, resize=ModelInput.LETTERBOX, colour_order=ModelInput.RGB),
        ObjectSelection(score_min=selection.score_min, iou_max=selection.iou_max, objects_max=selection.objects_max),
    )
    difference = _difference(imported, detector, embedder, backbone)
    embedding_digest = letterboxed_embedding_digest(backbone)
    concepts, thresholds = detector.concepts, detector.thresholds
    digest = write_file(model, Task.DETECTION, concepts, thresholds, embedding_digest, signature, path)
    return Export(path=path, digest=digest, size_bytes=path.stat().st_size, difference_max=difference)


def _graph(
    imported: ImportedNetwork,
    detector: ImportedDetector,
    embedder: nn.Module,
    backbone: Backbone,
    *,
    with_candidates: bool = False,
) -> onnx.ModelProto:
    return imported_detector_graph(
        imported,
        detector.head,
        detector.calibration,
        detector.selection,
        embedder,
        embedding_side_px=backbone.input_size_px,
        embedding_dimension=EMBEDDING_DIMENSION,
        with_candidates=with_candidates,
    )


def _difference(
    imported: ImportedNetwork, detector: ImportedDetector, embedder: nn.Module, backbone: Backbone
) -> float:
    """Returns the largest difference between the file and torch on the probe images. The maps are computed by onnxruntime."""
    probe = probe_pixels()
    graph = _graph(imported, detector, embedder, backbone, with_candidates=True)
    names = [CANDIDATE_BOXES, CANDIDATE_SCORES, EMBEDDING]
    actual: list[Array] = open_session(graph).run(names, {PIXELS: probe})
    maps = open_session(imported_maps_graph(imported, exact=True)).run(
        [f"stride{stride}" for stride in STRIDES], {PIXELS: probe}
    )
    slopes, shifts = (torch.tensor(one) for one in (detector.calibration.slopes, detector.calibration.shifts))
    with torch.inference_mode():
        logits, boxes = detector.head([torch.from_numpy(one) for one in maps])
        shares = logits.sigmoid().clamp(PROBABILITY_MIN, 1 - PROBABILITY_MIN)
        scores = ((shares.log() - (1 - shares).log()) * slopes + shifts).sigmoid()
    expected = [boxes.numpy(), scores.numpy(), torch_embeddings(embedder, backbone.input_size_px, probe)]
    difference = max(float(np.abs(one - other).max()) for one, other in zip(actual, expected, strict=True))
    if not difference <= DIFFERENCE_MAX:
        raise ExportError(
            f"the outputs of the exported file differ by {difference:.2e} from those of the model, the maximum is {DIFFERENCE_MAX}"
        )
    return difference
