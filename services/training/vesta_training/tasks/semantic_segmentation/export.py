"""Exports a segmenter as a model file, after verifying its probabilities and its embeddings against torch."""

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from vesta_common.media.model_signatures import OVERLAP, PRESENCE
from vesta_contracts.training.v1 import ModelInput

from vesta_training.errors import ExportError
from vesta_training.example import Array
from vesta_training.features.backbone import EMBEDDING_DIMENSION, Backbone
from vesta_training.features.onnx_graph import EMBEDDING, FINE_STRIDES, PIXELS
from vesta_training.features.sessions import open_session
from vesta_training.models.export import Export, probe_pixels, torch_embeddings, torch_maps
from vesta_training.models.graph_layers import PROBABILITY_MIN
from vesta_training.models.model_file import write_file
from vesta_training.models.segmenter_graph import AREA_MIN, LOGITS, segmenter_graph
from vesta_training.models.signature import make_signature
from vesta_training.recipes.choices import Task
from vesta_training.tasks.semantic_segmentation.segmenter import Segmenter

# Of probabilities. Summation orders cause differences of about 1e-5.
DIFFERENCE_MAX = 1e-3


def export_segmenter(network: nn.Module, segmenter: Segmenter, backbone: Backbone, path: Path) -> Export:
    """Writes the model file. Its embeddings are those of the backbone for images of the size of the segmenter.

    Raises:
        ExportError: its probabilities or embeddings differ from those of torch.
    """
    model = _graph(network, segmenter)
    onnx.checker.check_model(model, full_check=True)
    side_px, vocabulary = segmenter.side_px, segmenter.vocabulary
    declared = ModelInput(height_px=side_px, width_px=side_px, resize=ModelInput.STRETCH, colour_order=ModelInput.RGB)
    difference = _difference(network, segmenter)
    digest = write_file(
        model,
        Task.SEMANTIC_SEGMENTATION,
        vocabulary.concepts,
        vocabulary.thresholds,
        backbone.at(side_px).digest,
        make_signature(model, declared),
        path,
    )
    return Export(path=path, digest=digest, size_bytes=path.stat().st_size, difference_max=difference)


def torch_outputs(segmenter: Segmenter, maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the class probabilities `(N, C + 1, h, w)`, presence and overlap `(N, C)` with torch, as the reference for the graph."""
    calibration = segmenter.calibration
    classes = (segmenter.logits(maps) / calibration.temperature).softmax(dim=1)
    shares = classes[:, 1:]
    own = (shares == classes.amax(dim=1, keepdim=True)).float()
    highest = (shares * own).amax(dim=(2, 3))
    slopes, shifts = (torch.tensor(one) for one in (calibration.presence.slopes, calibration.presence.shifts))
    clipped = highest.clamp(PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    presence = ((clipped.log() - (1 - clipped).log()) * slopes + shifts).sigmoid() * highest.sign()
    inside = (shares * own).sum((2, 3))
    union = (own.sum((2, 3)) + shares.sum((2, 3)) - inside).clamp(min=AREA_MIN)
    return classes, presence, inside / union


def _graph(network: nn.Module, segmenter: Segmenter, *, with_logits: bool = False) -> onnx.ModelProto:
    return segmenter_graph(
        network,
        segmenter.heads,
        segmenter.calibration,
        side_px=segmenter.side_px,
        embedding_dimension=EMBEDDING_DIMENSION,
        with_logits=with_logits,
    )


def _difference(network: nn.Module, segmenter: Segmenter) -> float:
    """Returns the largest difference between the file and torch on the probe images."""
    graph = _graph(network, segmenter, with_logits=True)
    session = open_session(graph)
    probe = probe_pixels()
    actual: list[Array] = session.run([LOGITS, PRESENCE, OVERLAP, EMBEDDING], {PIXELS: probe})
    with torch.inference_mode():
        actual[0] = torch.from_numpy(actual[0]).softmax(dim=1).numpy()
        maps = torch_maps(network, segmenter.side_px, probe, FINE_STRIDES)
        expected = [one.numpy() for one in torch_outputs(segmenter, maps)]
    expected.append(torch_embeddings(network, segmenter.side_px, probe))
    difference = max(float(np.abs(one - other).max()) for one, other in zip(actual, expected, strict=True))
    if not difference <= DIFFERENCE_MAX:
        raise ExportError(
            f"the outputs of the exported file differ by {difference:.2e} from those of the model, the maximum is {DIFFERENCE_MAX}"
        )
    return difference
