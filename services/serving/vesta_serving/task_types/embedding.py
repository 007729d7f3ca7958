"""Models that only compute embeddings: they predict nothing. Pure."""

from collections.abc import Mapping

from vesta_common.media.model_input import Placement
from vesta_common.media.model_signatures import EMBEDDING
from vesta_contracts.common.v1 import Prediction

from vesta_serving.task_types.policy import Policy
from vesta_serving.task_types.serving_task import ImageOutputs, ServingTask, Vocabulary, check_no_thresholds


class Embedding(ServingTask):
    """Predictions without scores, which are always uncertain."""

    outputs = (EMBEDDING,)

    def check_thresholds(self, thresholds: Mapping[str, float], vocabulary: Vocabulary) -> None:
        check_no_thresholds(thresholds, vocabulary)

    def prediction(
        self,
        outputs: ImageOutputs,  # noqa: ARG002
        vocabulary: Vocabulary,
        policy: Policy,  # noqa: ARG002
        placement: Placement,  # noqa: ARG002
    ) -> Prediction:
        return Prediction(
            model_version=vocabulary.model_version,
            uncertain=True,
            uncertain_reason="the model only computes embeddings",
        )
