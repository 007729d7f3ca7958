"""The estimate of labels saved, or the reason why there is none."""

from vesta_conductor.reconciliation.label_saving import label_saving
from vesta_contracts.training.v1 import Estimate, RandomLabels


def test_labels_are_saved_where_random_choice_would_have_needed_more() -> None:
    found = label_saving(RandomLabels(labels=Estimate(value=333.4, low=200, high=520)), 300)
    assert (found.saved_labels, found.spent_labels, found.reason) == (33, 300, "")
    assert found.random_labels == Estimate(value=333.4, low=200, high=520)


def test_a_loss_is_stated_as_well() -> None:
    assert label_saving(RandomLabels(labels=Estimate(value=100, low=80, high=150)), 300).saved_labels == -200


def test_an_upper_end_that_is_not_known_stays_so() -> None:
    labels = Estimate(value=400, low=200, high=1250)
    assert label_saving(RandomLabels(labels=labels, high_unknown=True), 300).high_unknown


def test_what_cannot_be_estimated_has_the_reason_and_no_figure() -> None:
    found = label_saving(RandomLabels(reason="too few labels"), 60)
    assert (found.reason, found.spent_labels) == ("too few labels", 60)
    assert not found.HasField("random_labels")


def test_without_test_labels_the_reason_is_that() -> None:
    assert "test split" in label_saving(None, 60).reason
