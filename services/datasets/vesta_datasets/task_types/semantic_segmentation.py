"""Semantic segmentation: each pixel of an item has at most one concept, and the concepts of its pixels label it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from vesta_common.media.annotation_cost import DRAW_OUTLINE_SECONDS, LOOK_SECONDS
from vesta_common.media.mask_runs import Edges, area, covered, edges_of, without
from vesta_contracts.common.v1 import Annotation, Prediction

from vesta_datasets.items.annotations import concepts_of
from vesta_datasets.task_types.image_labels import to_unit
from vesta_datasets.task_types.maps import mask, masks_of_map
from vesta_datasets.task_types.multi_label import MultiLabel
from vesta_datasets.task_types.uncertainty import Answers, Mask, Uncertainty


class SemanticSegmentation(MultiLabel):
    """Masks, one per concept. Scores by concept are those of its presence, as for several labels."""

    def imported(self, annotations: Sequence[Annotation]) -> Sequence[Annotation]:
        """Joins the masks of each concept. A pixel of several concepts gets that with the smallest mask, which lies on top most likely.

        Annotations with another shape are kept, and rejected later.
        """
        masks = [one for one in annotations if one.HasField("mask")]
        if len(masks) < len(annotations) or len({(one.mask.height_px, one.mask.width_px) for one in masks}) > 1:
            return annotations
        parts: defaultdict[str, list[Edges]] = defaultdict(list)
        for one in masks:
            parts[one.concept].append(edges_of(one.mask))
        joined = {concept: covered(edges, 1) for concept, edges in parts.items()}
        taken = covered([], 1)
        found = []
        for concept, edges in sorted(joined.items(), key=lambda entry: (area(entry[1]), entry[0])):
            rest = without(edges, taken)
            taken = covered([taken, edges], 1)
            if len(rest):
                found.append(mask(concept, rest, masks[0].mask.height_px, masks[0].mask.width_px))
        return sorted(found, key=lambda one: one.concept)

    def uncertainty(
        self,
        predictions: Sequence[Prediction | None],
        concepts: Sequence[str],
        held: Mask | None = None,
        answers: Answers = (),
    ) -> Uncertainty:
        """By the margin of the prediction, which covers its pixels too, and by the presence of the concepts, half each.

        The smallest certainty alone is equal for many images: 0 as soon as the pixels of one concept are doubtful.
        """
        presence = super().uncertainty(predictions, concepts, held, answers)
        doubts = np.array([1.0 if one is None else 1.0 - one.margin for one in predictions], np.float32)
        return Uncertainty(margin=to_unit((doubts + presence.margin) / 2), entropy=presence.entropy)

    def labels(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:
        """Those of the masks. An item without a mask is labelled "none of the concepts"."""
        return concepts_of(annotations)

    def other_concepts(self, annotations: Iterable[Annotation]) -> tuple[str, ...]:  # noqa: ARG002
        return ()

    def pre_annotations(self, prediction: Prediction) -> list[Annotation]:
        """The map that the model predicts, as one mask for each of its concepts."""
        return masks_of_map(prediction.segmentation_map)

    def annotation_seconds(self, prediction: Prediction) -> float:
        """Half of the time to draw the outlines of all concepts of the map, because masks are corrected rather than drawn again."""
        concepts = prediction.stored.concepts or prediction.segmentation_map.concepts
        return LOOK_SECONDS + DRAW_OUTLINE_SECONDS * len(concepts) / 2
