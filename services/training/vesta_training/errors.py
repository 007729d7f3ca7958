"""The errors of a training. Each has a machine-readable reason, and a message that suggests a fix.

    LearningError               TRAINING_FAILED
    ├── RecipeError           RECIPE_INVALID
    ├── WeightsError          WEIGHTS_REJECTED
    ├── TooFewLabelsError     TOO_FEW_LABELS
    ├── ExportError           EXPORT_INVALID
    └── DeadlinePassedError   RUN_DEADLINE_EXCEEDED

`TrainingCancelled` is not part of this tree, because a cancellation is not an error.
"""

from vesta_common.errors import FailedPrecondition, InvalidArgument


class LearningError(FailedPrecondition):
    """The training failed permanently; a retry with the same inputs would fail again."""

    default_reason = "TRAINING_FAILED"


class RecipeError(InvalidArgument, LearningError):
    """The YAML of the recipe has an unknown or missing key, or a value that is out of range."""

    default_reason = "RECIPE_INVALID"


class WeightsError(LearningError):
    """The weights file does not match the SHA-256 or the architecture of the recipe."""

    default_reason = "WEIGHTS_REJECTED"


class TooFewLabelsError(LearningError):
    """The training split of the snapshot has too few labels for the recipe."""

    default_reason = "TOO_FEW_LABELS"


class ExportError(LearningError):
    """A model file is invalid, or its predictions differ from those of the model that it was exported from."""

    default_reason = "EXPORT_INVALID"


class DeadlinePassedError(LearningError):
    """The run exceeded its deadline. Use a later deadline or a smaller recipe."""

    default_reason = "RUN_DEADLINE_EXCEEDED"

    def __init__(self, seconds: int) -> None:
        super().__init__(
            f"the run exceeded its deadline of {seconds} s; start another run with a longer "
            "deadline, or a smaller recipe"
        )


class TrainingCancelled(Exception):
    """The training run was cancelled."""
