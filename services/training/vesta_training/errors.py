"""What training refuses, each with a reason that programs can tell and a sentence that says what would work.

    LearningError               LEARNING_FAILED
    ├── RecipeError           RECIPE_INVALID
    ├── WeightsError          WEIGHTS_REFUSED
    ├── TooFewLabelsError     TOO_FEW_LABELS
    ├── ExportError           EXPORT_WRONG
    └── DeadlinePassedError   RUN_DEADLINE_EXCEEDED

`TrainingCancelled` stands apart: it is no error.
"""

from vesta_common.errors import FailedPrecondition, InvalidArgument


class LearningError(FailedPrecondition):
    """A training cannot go on; trying again with the same inputs would fail again."""

    default_reason = "LEARNING_FAILED"


class RecipeError(InvalidArgument, LearningError):
    """The recipe's YAML says something unknown, missing or out of range."""

    default_reason = "RECIPE_INVALID"


class WeightsError(LearningError):
    """The weights are not the file that the recipe names, or do not fit its architecture."""

    default_reason = "WEIGHTS_REFUSED"


class TooFewLabelsError(LearningError):
    """The snapshot's training side cannot teach what the recipe asks for."""

    default_reason = "TOO_FEW_LABELS"


class ExportError(LearningError):
    """A model file answers otherwise than the model it was made from, or is no model file."""

    default_reason = "EXPORT_WRONG"


class DeadlinePassedError(LearningError):
    """The run took longer than its deadline allows; a later deadline or a smaller recipe would work."""

    default_reason = "RUN_DEADLINE_EXCEEDED"

    def __init__(self, seconds: int) -> None:
        super().__init__(
            f"it took longer than its deadline of {seconds} s; start another run with a later one, or with a smaller recipe"
        )


class TrainingCancelled(Exception):
    """Someone cancelled the training."""
