"""The estimate of labels saved, or the reason why there is none."""

from vesta_conductor.reconciliation.label_saving import label_saving
from vesta_contracts.training.v1 import Estimate, RandomLabels


def test_labels_are_saved_if_random_selection_needs_more() -> None:
    found = label_saving(RandomLabels(labels=Estimate(value=333.4, low=200, high=520)), 300)
    assert (found.saved_labels, found.spent_labels, found.reason) == (33, 300, "")
    assert found.random_labels == Estimate(value=333.4, low=200, high=520)


def test_a_negative_saving_is_reported() -> None:
    assert label_saving(RandomLabels(labels=Estimate(value=100, low=80, high=150)), 300).saved_labels == -200


def test_an_unknown_upper_bound_is_unset() -> None:
    labels = Estimate(value=400, low=200, high=1250)
    assert label_saving(RandomLabels(labels=labels, high_unknown=True), 300).high_unknown


def test_a_saving_that_cannot_be_estimated_has_a_reason_and_no_value() -> None:
    found = label_saving(RandomLabels(reason="too few labels"), 60)
    assert (found.reason, found.spent_labels) == ("too few labels", 60)
    assert not found.HasField("random_labels")


def test_missing_test_labels_are_the_reason() -> None:
    assert "test split" in label_saving(None, 60).reason
