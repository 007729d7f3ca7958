"""Predicted maps as masks, one for each concept. Pure."""

import numpy as np
from vesta_common.media.mask_runs import Edges, covered, mask_of
from vesta_contracts.common.v1 import Annotation, SegmentationMap


def masks_of_map(segmentation: SegmentationMap) -> list[Annotation]:
    """Returns a mask for each concept that a map contains."""
    ends = np.cumsum(np.array(segmentation.runs_px, np.int64))
    runs = np.stack([ends - np.array(segmentation.runs_px, np.int64), ends], axis=1)
    numbers = np.array(segmentation.concept_numbers, np.int64)
    found = []
    for number, concept in enumerate(segmentation.concepts, start=1):
        edges = covered([runs[numbers == number].ravel()], 1)
        if len(edges):
            found.append(mask(concept, edges, segmentation.height_px, segmentation.width_px))
    return found


def mask(concept: str, edges: Edges, height_px: int, width_px: int) -> Annotation:
    """Returns a mask annotation."""
    return Annotation(concept=concept, mask=mask_of(edges, height_px, width_px))
