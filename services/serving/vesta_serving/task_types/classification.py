"""Classification: the best concept is predicted if its score reaches the policy's threshold, otherwise none. Pure."""

from collections.abc import Mapping

import numpy as np
from vesta_common.media.model_input import Placement
from vesta_common.media.model_signatures import PROBABILITIES
from vesta_common.media.predictions import margin_of_best
from vesta_contracts.common.v1 import ConceptScore, Prediction

from vesta_serving.task_types.policy import Policy
from vesta_serving.task_types.serving_task import ImageOutputs, ServingTask, Vocabulary, check_no_thresholds


class Classification(ServingTask):
    """One concept or none. Uncertain if the best score is low, or another one is nearly as high."""

    outputs = (PROBABILITIES,)

    def check_thresholds(self, thresholds: Mapping[str, float], vocabulary: Vocabulary) -> None:
        check_no_thresholds(thresholds, vocabulary)

    def prediction(
        self,
        outputs: ImageOutputs,
        vocabulary: Vocabulary,
        policy: Policy,
        placement: Placement,  # noqa: ARG002
    ) -> Prediction:
        """From `(C,)` calibrated probabilities."""
        output = outputs[PROBABILITIES]
        order = np.argsort(-output, kind="stable")
        scores = output[order].tolist()
        names = [vocabulary.concepts[index] for index in order]
        is_predicted = bool(scores[0] >= np.float32(policy.score_threshold))
        margin = float(margin_of_best(output[None])[0])
        reason = _doubt(names, scores, margin, policy, is_predicted=is_predicted)
        return Prediction(
            model_version=vocabulary.model_version,
            scores=[
                ConceptScore(concept=name, score=score, predicted=place == 0 and is_predicted)
                for place, (name, score) in enumerate(zip(names, scores, strict=True))
            ],
            uncertain=bool(reason),
            uncertain_reason=reason,
            margin=margin,
        )


def _doubt(names: list[str], scores: list[float], margin: float, policy: Policy, *, is_predicted: bool) -> str:
    """Returns why a prediction is uncertain; empty if it is not."""
    if policy.score_certain is not None and scores[0] < policy.score_certain:
        return f"the best score, of {names[0]}, is {scores[0]:.2f}, below {policy.score_certain:g}"
    if policy.acceptance is not None and not is_predicted:
        return f"the best score, of {names[0]}, is {scores[0]:.2f}, so that no concept is predicted"
    cause = f"the score of {names[0]} is {scores[0]:.2f}"
    if len(names) > 1:
        cause = f"the scores of {names[0]} and {names[1]} differ by {margin:.2f}"
    return policy.doubt(margin, names[:1], cause)
