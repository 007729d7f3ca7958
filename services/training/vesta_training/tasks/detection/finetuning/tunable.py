"""Detectors whose whole network can be trained: what a fine-tuning trains, its loss, and the model file of the result."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from vesta_common.media.model_input import Resize

from vesta_training.example import Array
from vesta_training.features.backbone import Backbone
from vesta_training.features.torch_maps import BackboneMaps
from vesta_training.models.export import Export
from vesta_training.tasks.detection.boxed_view import BoxedView
from vesta_training.tasks.detection.detector import Detector
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.export import export_detector
from vesta_training.tasks.detection.loss import LossSums, detection_sums
from vesta_training.tasks.detection.matching import Matcher


class TunableDetector(Protocol):
    """A detector with its network. Serialisable."""

    @property
    def network(self) -> nn.Module:
        """Maps images `(N, 3, S, S)` in [0, 255] to maps by stride."""
        ...

    @property
    def detector(self) -> Any:
        """A `Detector` or an `ImportedDetector`, whose head predicts from the maps."""
        ...

    @property
    def resize(self) -> Resize:
        """How images become squares."""
        ...

    @property
    def side_px(self) -> int:
        """The side of the input of the network, S."""
        ...

    @property
    def rate_share(self) -> float:
        """The learning rate of the network, as a share of that of the recipe."""
        ...

    def boxes(self, example: BoxedExample) -> Array:
        """Returns the boxes of an example `(M, 4)`, as shares of the sides of the input."""
        ...

    def sums(self, outputs: Any, batch: Sequence[BoxedView]) -> LossSums:
        """Returns the loss of a batch of views, given the outputs of the head."""
        ...

    def tuned(self, network: nn.Module, head: nn.Module) -> "TunableDetector":
        """Returns the detector with another network and head."""
        ...

    def calibrated(self, detector: Any) -> "TunableDetector":
        """Returns the same network with a calibrated detector."""
        ...

    def export(self, path: Path) -> Export:
        """Writes the model file."""
        ...


@dataclass(frozen=True, slots=True)
class TunableBackbone:
    """A detector on the backbone of the recipe; see `TunableDetector`."""

    network: nn.Module
    detector: Any
    side_px: int
    backbone: Backbone
    resize: Resize = "stretch"
    rate_share: float = 1.0

    def boxes(self, example: BoxedExample) -> Array:
        """Returns the boxes of an example; stretching leaves their shares unchanged."""
        return example.boxes

    def sums(self, outputs: Any, batch: Sequence[BoxedView]) -> LossSums:
        """Returns the loss of `detection_sums`."""
        matcher = Matcher(torch.from_numpy(self.detector.defaults))
        return detection_sums(outputs, [matcher.match_once(view) for view in batch])

    def tuned(self, network: nn.Module, head: nn.Module) -> "TunableBackbone":
        """Returns the detector with another network and head."""
        return replace(self, network=network, detector=replace(self.detector, head=head))

    def calibrated(self, detector: Any) -> "TunableBackbone":
        """Returns the same network with a calibrated detector."""
        return replace(self, detector=detector)

    def export(self, path: Path) -> Export:
        """Writes the model file. Its embeddings are a space of their own, since those of the tuned network differ from all others."""
        network = self.network.backbone
        assert isinstance(network, nn.Module)
        tuned = replace(self.backbone, weights_sha256=weights_digest(network))
        return export_detector(network, self.detector, tuned, self.side_px, path)


def tunable_backbone(network: nn.Module, detector: Detector, side_px: int, backbone: Backbone) -> TunableBackbone:
    """Returns a detector whose head was fitted on the maps of a backbone."""
    return TunableBackbone(BackboneMaps(network), detector, side_px, backbone)


def weights_digest(network: nn.Module) -> str:
    """Returns the SHA-256 of all tensors of a network on the CPU."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
