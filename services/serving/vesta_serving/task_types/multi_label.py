"""Multi-label classification: every concept whose score reaches its threshold is predicted. Pure."""

import numpy as np
from vesta_common.media.model_input import Placement
from vesta_common.media.model_signatures import PROBABILITIES
from vesta_common.media.predictions import margin_to_thresholds, share_to_certainty
from vesta_contracts.common.v1 import Prediction

from vesta_serving.task_types.policy import Policy
from vesta_serving.task_types.serving_task import ImageOutputs, ServingTask, Vocabulary, concept_scores


class MultiLabel(ServingTask):
    """Any number of concepts. Uncertain if a score is close to its threshold."""

    outputs = (PROBABILITIES,)

    def prediction(
        self,
        outputs: ImageOutputs,
        vocabulary: Vocabulary,
        policy: Policy,
        placement: Placement,  # noqa: ARG002
    ) -> Prediction:
        """From `(C,)` calibrated probabilities."""
        output = outputs[PROBABILITIES]
        thresholds = np.array(vocabulary.applied_thresholds(policy), np.float32)
        predicted = output >= thresholds
        margin = float(margin_to_thresholds(output[None], thresholds)[0])
        closest = int(share_to_certainty(output, thresholds).argmin())
        reason = policy.doubt(
            margin,
            [vocabulary.concepts[index] for index in np.flatnonzero(predicted)],
            f"the score of {vocabulary.concepts[closest]} is {output[closest]:.2f}, close to its threshold "
            f"{thresholds[closest]:.2f}",
        )
        return Prediction(
            model_version=vocabulary.model_version,
            scores=concept_scores(output, predicted, thresholds, vocabulary),
            uncertain=bool(reason),
            uncertain_reason=reason,
            margin=margin,
        )
