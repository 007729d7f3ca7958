"""A detector with an imported network that can be trained as a whole; see `TunableDetector`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from vesta_common.media.model_input import Resize

from vesta_training.errors import ExportError
from vesta_training.example import Array
from vesta_training.features.backbone import Backbone, load_network
from vesta_training.features.onnx_graph import PIXELS, STRIDES
from vesta_training.features.sessions import open_session
from vesta_training.models.export import Export, probe_pixels
from vesta_training.models.imported_graph import ImportedNetwork, imported_maps_graph
from vesta_training.tasks.detection.boxed_view import BoxedView
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.export import DIFFERENCE_MAX
from vesta_training.tasks.detection.imported.export import export_imported
from vesta_training.tasks.detection.imported.learn import in_letterbox
from vesta_training.tasks.detection.imported.loss import imported_sums
from vesta_training.tasks.detection.imported.trainable import TrainableNetwork
from vesta_training.tasks.detection.loss import LossSums

# The weights of an exported network contain its batch normalisation, and tolerate smaller steps than those of the backbone: with 30
# photographs, the learning rate of the recipe lowered the mAP@50 on held-out images from 0.90 to 0.23 in one epoch, and 6 % of it to 0.78.
RATE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class TunableImported:
    """A detector on an imported network.

    Attributes:
        imported: the network at the start.
        backbone: of the embeddings.
    """

    network: nn.Module
    detector: Any
    side_px: int
    imported: ImportedNetwork
    backbone: Backbone
    resize: Resize = "letterbox"
    rate_share: float = RATE_SHARE

    def boxes(self, example: BoxedExample) -> Array:
        """Returns the boxes of an example, as shares of the letterboxed input."""
        return in_letterbox(example.boxes, self.side_px, example.width_px, example.height_px)

    def sums(self, outputs: Any, batch: Sequence[BoxedView]) -> LossSums:
        """Returns the loss of classes and boxes."""
        return imported_sums(outputs, batch, trains_boxes=True)

    def tuned(self, network: nn.Module, head: nn.Module) -> "TunableImported":
        """Returns the detector with another network and head."""
        return replace(self, network=network, detector=replace(self.detector, head=head))

    def calibrated(self, detector: Any) -> "TunableImported":
        """Returns the same network with a calibrated detector."""
        return replace(self, detector=detector)

    def export(self, path: Path) -> Export:
        """Writes the model file with the weights of the network. Its embeddings are those of the backbone for letterboxed images.

        Raises:
            ExportError: the maps, candidates or embeddings of the file differ from those of torch.
        """
        assert isinstance(self.network, TrainableNetwork)
        imported = self.network.written_to(self.imported)
        difference = _difference(self.network, imported)
        export = export_imported(imported, self.detector, load_network(self.backbone), self.backbone, path)
        return replace(export, difference_max=max(difference, export.difference_max))


def _difference(network: TrainableNetwork, imported: ImportedNetwork) -> float:
    """Returns the largest difference between the maps of torch and of the graph on the probe images, relative to the largest value."""
    side_px = imported.network.side_px
    probe = torch.from_numpy(probe_pixels()).permute(0, 3, 1, 2).float()
    images = nn.functional.interpolate(probe, size=(side_px, side_px), mode="bilinear", align_corners=False)
    names = [f"stride{stride}" for stride in STRIDES]
    actual: list[Array] = open_session(imported_maps_graph(imported, exact=True)).run(names, {PIXELS: probe_pixels()})
    with torch.inference_mode():
        expected = [one.numpy() for one in network.eval()(images)]
    difference = max(
        float(np.abs(one - other).max() / max(1.0, np.abs(other).max()))
        for one, other in zip(actual, expected, strict=True)
    )
    if not difference <= DIFFERENCE_MAX:
        raise ExportError(
            f"the maps of the exported file differ by {difference:.2e} from those of the network, the maximum is {DIFFERENCE_MAX}"
        )
    return difference
