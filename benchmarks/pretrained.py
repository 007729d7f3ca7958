"""The quality of detectors that can start from imported weights (`weights=FILE`), relative to the packaged backbone alone.

The goal is that of weights that were trained on COCO, for photographs like those of COCO (`data=FOLDER`).
"""

from collections.abc import Iterator
from pathlib import Path

from control import RandomControl
from detection import boxed_images
from figures import Figure
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.training.v1 import GetModelRequest, GetModelVersionRequest, Metrics
from vesta_local.platform import Platform
from world import set_up

GOAL, FLOOR = 1.3, 0.95
CARD = "license: unknown\nsource: the file of the benchmark\n"


def measure(owner: Vesta, platform: Platform, data: Path | None, weights: Path) -> Iterator[Figure]:
    """Yields `detection_imported_weights`: the ratio of mAP@50:95 on the test images, with all labels."""
    photographs = boxed_images(data, platform.home.root)
    world = set_up(owner, platform.home.inbox, photographs, f"bench-{new_id()}")
    control = RandomControl(owner, world, len(photographs.pool))
    packaged = _trained(owner, world.project, control, len(photographs.pool))
    owner.import_detector(world.project, weights, CARD, "imported")
    imported = _trained(owner, world.project, control, len(photographs.pool))
    before, after = (one.mean_average_precision.value for one in (packaged, imported))
    yield Figure(
        "detection_imported_weights",
        after / max(before, 1e-6),
        GOAL,
        lower=False,
        floor=FLOOR,
        details={
            "packaged_map": before,
            "imported_map": after,
            "packaged_map50": packaged.mean_average_precision_50.value,
            "imported_map50": imported.mean_average_precision_50.value,
            "labels": float(len(photographs.pool)),
            "test_images": float(packaged.item_count),
        },
    )


def _trained(owner: Vesta, project: str, control: RandomControl, label_count: int) -> Metrics:
    """Trains on all labels, and returns the metrics of the model."""
    control.measure(label_count)
    model = owner.models.GetModel(GetModelRequest(name=f"{project}/models/random-control"))
    return owner.models.GetModelVersion(GetModelVersionRequest(name=model.latest_version)).metrics
