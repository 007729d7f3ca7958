"""Each error of training has a reason of its own."""

import pytest
from vesta_common.errors import VestaError
from vesta_training import errors


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (errors.LearningError, "TRAINING_FAILED"),
        (errors.RecipeError, "RECIPE_INVALID"),
        (errors.WeightsError, "WEIGHTS_REJECTED"),
        (errors.TooFewLabelsError, "TOO_FEW_LABELS"),
        (errors.ExportError, "EXPORT_INVALID"),
    ],
)
def test_each_learning_error_has_its_own_reason(kind: type[VestaError], reason: str) -> None:
    assert kind("why").reason == reason
