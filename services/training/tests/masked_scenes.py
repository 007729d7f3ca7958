"""The scenes of `boxed_scenes` with the pixels of their objects."""

import numpy as np
from boxed_scenes import HEIGHT_PX, WIDTH_PX, Scenes
from vesta_common.media.mask_runs import Edges
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.semantic_segmentation.examples import MaskedExample


def masked_examples(scenes: Scenes, train: int) -> tuple[MaskedExample, ...]:
    """Returns the first `train` scenes as training examples, and the others as test examples."""
    return tuple(_masked(example) for example in scenes.examples(train))


def edges(inside: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Edges:
    """Returns the edges of the true pixels."""
    return np.flatnonzero(np.diff(inside.ravel().astype(np.int8), prepend=0, append=0)).astype(np.int64)


def _masked(example: BoxedExample) -> MaskedExample:
    down, across = np.mgrid[:HEIGHT_PX, :WIDTH_PX] + 0.5
    masks = {concept: np.zeros((HEIGHT_PX, WIDTH_PX), np.bool_) for concept in example.concepts}
    for box, concept in zip(example.boxes * np.array([WIDTH_PX, HEIGHT_PX] * 2), example.box_concepts, strict=True):
        x, y = (across - (box[0] + box[2]) / 2) / (box[2] - box[0]), (down - (box[1] + box[3]) / 2) / (box[3] - box[1])
        masks[concept] |= (np.maximum(abs(x), abs(y)) < 0.5) if concept == "square" else (x**2 + y**2 < 0.25)
    return MaskedExample(
        item=example.item,
        image_sha256=example.image_sha256,
        concepts=example.concepts,
        split=example.split,
        control=example.control,
        masks=tuple(edges(masks[concept]) for concept in example.concepts),
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
    )
