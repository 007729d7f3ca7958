"""Estimates the labels that active selection saved: the labels that random selection would need, minus the labels spent."""

from vesta_contracts.conductor.v1 import LabelSaving
from vesta_contracts.training.v1 import RandomLabels

NO_TEST_LABELS = "no item of the test split is labelled, so that the champion is not measured"


def label_saving(random_labels: RandomLabels | None, spent_labels: int) -> LabelSaving:
    """Returns the saving, or the reason why it cannot be estimated.

    Args:
        random_labels: from the champion's training run; None if there is no measurement.
        spent_labels: the number of labels that the champion was trained on.
    """
    if random_labels is None or not random_labels.HasField("labels"):
        reason = NO_TEST_LABELS if random_labels is None else random_labels.reason
        return LabelSaving(spent_labels=spent_labels, reason=reason)
    return LabelSaving(
        random_labels=random_labels.labels,
        spent_labels=spent_labels,
        saved_labels=round(random_labels.labels.value) - spent_labels,
        high_unknown=random_labels.high_unknown,
    )
