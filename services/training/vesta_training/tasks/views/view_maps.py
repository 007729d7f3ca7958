"""The cached feature maps of the views of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from vesta_common.media.model_input import InputFormat, Resize

from vesta_training.atomic_files import write_whole
from vesta_training.example import Example, Pixels
from vesta_training.features.backbone import Backbone
from vesta_training.features.feature_maps import MapCache
from vesta_training.features.onnx_graph import STRIDES, maps_graph
from vesta_training.features.runtime import ModelRuntime
from vesta_training.progress import Reporter
from vesta_training.recipes.choices import MapHeadChoices
from vesta_training.tasks.assignment import Dependencies
from vesta_training.tasks.views.views import SOURCE_SCALE, View, ViewChoices, draw_view, view_pixels

if TYPE_CHECKING:
    import torch

FOLDER = "feature-maps"


@dataclass(frozen=True, slots=True)
class ViewMaps:
    """The views of images, and where their maps are cached.

    Attributes:
        model_path: the file that computes maps.
        count: views per image.
        resize: how images become squares.
    """

    cache: MapCache
    model_path: Path
    count: int
    side_px: int
    choices: ViewChoices
    resize: Resize = "stretch"

    def compute(self, examples: Sequence[Example], dependencies: Dependencies, report: Reporter) -> None:
        """Computes the missing maps of all views of the examples."""
        self.cache.prune()
        self.cache.compute(
            [self._key(example.image_sha256, number) for example in examples for number in range(self.count)],
            model=lambda: ModelRuntime(self.model_path, dependencies.device),
            pixels=lambda keys: self._pixels(keys, dependencies),
            threads=dependencies.threads,
            computed=report.step,
        )

    def whole(self, example: Example) -> str:
        """Returns the key of the maps of the image itself."""
        return self._key(example.image_sha256, 0)

    def views(self, example: Example) -> list[tuple[str, View]]:
        """Returns the views of an example, with the keys of their maps."""
        sha256 = example.image_sha256
        return [(self._key(sha256, number), draw_view(sha256, number, self.choices)) for number in range(self.count)]

    def _key(self, image_sha256: str, number: int) -> str:
        return f"{image_sha256}.{number}"

    def _pixels(self, keys: Sequence[str], dependencies: Dependencies) -> list[Pixels]:
        """Returns the pixels of a batch of views. An image is loaded once for itself, and once for all parts of it."""
        whole = InputFormat(self.side_px, self.side_px, self.resize)
        source_px = round(SOURCE_SCALE * self.side_px)
        source = InputFormat(source_px, source_px, self.resize)
        load = cache(dependencies.pixels)
        answer = []
        for key in keys:
            image_sha256, number = key.split(".")
            view = draw_view(image_sha256, int(number), self.choices)
            answer.append(
                load(image_sha256, whole)
                if view.is_whole
                else view_pixels(load(image_sha256, source), view, self.side_px)
            )
        return answer


def view_maps(
    network: "torch.nn.Module",
    backbone: Backbone,
    choices: MapHeadChoices,
    image_count: int,
    folder: Path,
    strides: Sequence[int] = STRIDES,
) -> ViewMaps:
    """Returns the views of so many images: as many of each as the recipe allows.

    Args:
        folder: kept between runs.
    """
    model = maps_graph(network, choices.side_px, strides)
    path = folder / f"{backbone.digest}.maps{choices.side_px}.{len(strides)}.onnx"
    return maps_of(model, backbone.digest, choices.side_px, path, choices, image_count)


def maps_of(
    model: onnx.ModelProto,
    digest: str,
    side_px: int,
    path: Path,
    choices: MapHeadChoices,
    image_count: int,
    resize: Resize = "stretch",
) -> ViewMaps:
    """Returns the views of so many images, with the maps that a graph computes.

    Args:
        digest: of the network of the graph.
        side_px: of its input.
        path: of the file of the graph, which is written; its folder is kept between runs.
        resize: how images become its input.
    """
    onnx.checker.check_model(model, full_check=True)
    outputs = [output.type.tensor_type.shape.dim for output in model.graph.output]
    shapes = tuple((size[1].dim_value, size[2].dim_value, size[3].dim_value) for size in outputs)
    augmentation = f"{choices.zoom_min:g}-{choices.zoom_max:g}-{choices.flip:d}"
    write_whole(path, model.SerializeToString(deterministic=True))
    return ViewMaps(
        cache=MapCache(path.parent / FOLDER, f"{digest[:32]}-{side_px}-{len(shapes)}-{augmentation}", shapes),
        model_path=path,
        count=choices.view_count(image_count),
        side_px=side_px,
        choices=ViewChoices(choices.zoom_min, choices.zoom_max, choices.flip),
        resize=resize,
    )
