"""Semantic segmentation: the concept of each pixel of the image. Concepts that reach their threshold are predicted. Pure."""

import numpy as np
from vesta_common.errors import FailedPrecondition
from vesta_common.media.model_input import Placement
from vesta_common.media.model_signatures import OVERLAP, PRESENCE, SEGMENTATION
from vesta_common.media.predictions import Floats
from vesta_common.media.segmentation_maps import (
    map_certainties,
    map_on_image,
    margin_of_map,
    predicted_map,
    run_lengths,
)
from vesta_contracts.common.v1 import Prediction

from vesta_serving.task_types.policy import Policy
from vesta_serving.task_types.serving_task import ImageOutputs, ServingTask, Vocabulary, concept_scores


class SemanticSegmentation(ServingTask):
    """One concept or none per pixel. Uncertain if the presence of a concept or the extent of its pixels is."""

    outputs = (SEGMENTATION, PRESENCE, OVERLAP)

    def prediction(
        self, outputs: ImageOutputs, vocabulary: Vocabulary, policy: Policy, placement: Placement
    ) -> Prediction:
        """From a map `(height, width)`, `(C,)` probabilities of presence and `(C,)` expected overlaps, see `ModelOutput`.

        Raises:
            FailedPrecondition: MODEL_OUTPUT_INVALID, the map has numbers of concepts that the model does not have.
        """
        found = outputs[SEGMENTATION]
        if found.max(initial=0) > len(vocabulary.concepts):
            raise FailedPrecondition(
                f"{vocabulary.model_version} returns maps with numbers of concepts that it does not have; register a model "
                f"for its {len(vocabulary.concepts)} concepts",
                reason="MODEL_OUTPUT_INVALID",
            )
        thresholds = np.array(vocabulary.applied_thresholds(policy), np.float32)
        kept, scores, predicted = predicted_map(map_on_image(found, placement), outputs[PRESENCE], thresholds)
        margin = margin_of_map(scores, outputs[OVERLAP], thresholds)
        concepts = [vocabulary.concepts[index] for index in np.flatnonzero(predicted)]
        reason = policy.doubt(margin, concepts, _doubt(scores, outputs[OVERLAP], thresholds, vocabulary))
        return Prediction(
            model_version=vocabulary.model_version,
            scores=concept_scores(scores, predicted, thresholds, vocabulary),
            uncertain=bool(reason),
            uncertain_reason=reason,
            margin=margin,
            segmentation_map=run_lengths(kept, vocabulary.concepts),
        )


def _doubt(scores: Floats, overlaps: Floats, thresholds: Floats, vocabulary: Vocabulary) -> str:
    """Returns which concept makes the margin small; empty for a model without concepts."""
    if not scores.size:
        return ""
    presence, pixels = map_certainties(scores, overlaps, thresholds)
    closest = int(np.minimum(presence, pixels).argmin())
    name = vocabulary.concepts[closest]
    if presence[closest] <= pixels[closest]:
        return f"the score of {name} is {scores[closest]:.2f}, close to its threshold {thresholds[closest]:.2f}"
    return f"the pixels of {name} are expected to overlap the true ones by {overlaps[closest]:.0%}"
