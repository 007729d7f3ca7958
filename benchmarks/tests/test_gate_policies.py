"""The trade-off of the gate's policies that docs/loop.md states is the one that the recorded rounds show."""

from pathlib import Path

import pytest
from gate import GATE_ITEMS, POLICIES, Cost, read, record, replay, table
from label_saving import digits_tasks

LOOP_PAGE = Path(__file__).parents[2] / "docs" / "loop.md"


def test_the_page_about_the_loop_holds_the_table_of_the_recorded_rounds() -> None:
    assert table(read()) in LOOP_PAGE.read_text()


def test_with_enough_test_items_the_default_rejects_fewer_better_challengers_than_the_strict_policy() -> None:
    careful = [run for run in read() if not run.careless]
    strict, default = (replay(careful, POLICIES[name], GATE_ITEMS) for name in ("strict", "default"))
    assert default.better_rejected < strict.better_rejected
    assert default.worse_accepted >= strict.worse_accepted


def test_without_a_gate_every_challenger_is_deployed() -> None:
    cost = replay(read(), None, GATE_ITEMS)
    assert cost == Cost(cost.better, 0, cost.worse, cost.worse, cost.accuracy, 0.0)


def test_the_recorded_digits_can_be_recorded_again() -> None:
    again = next(record(digits_tasks([0]), "digits"))
    recorded = next(run for run in read() if (run.dataset, run.seed, run.careless) == ("digits", 0, False))
    assert again["truth"] == "".join(map(str, recorded.truth))
    assert [model["labels"] for model in again["models"]] == [model.label_count for model in recorded.models]
    accuracies = [model["accuracy"] for model in again["models"]]
    assert accuracies == pytest.approx([model.accuracy for model in recorded.models], abs=0.02)
