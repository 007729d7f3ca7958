"""What selection is told of the models' answers while a new model's scores come one by one."""

import numpy as np
import pytest
from vesta_contracts.common.v1 import ConceptScore, ImageScores
from vesta_datasets.candidates import PoolRow
from vesta_datasets.choosing import probabilities


def a_row(version: str = "", **scores: float) -> PoolRow:
    told = [ConceptScore(concept=concept, score=score) for concept, score in scores.items()]
    return PoolRow("item", False, ImageScores(model_version=version, scores=told) if version else None)


@pytest.mark.parametrize(
    ("rows", "multi_label", "expected"),
    [
        ([], False, None),
        ([a_row()], False, None),
        ([a_row("new")], False, None),
        # One row of the newest model among many of the one before: all speak.
        (
            [a_row("old", a=0.9, b=0.1), a_row("old", a=0.2, b=0.8), a_row("new", a=0.4, b=0.6), a_row()],
            False,
            [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.5, 0.5]],
        ),
        # The newest model tells one concept more, and one of before no longer.
        (
            [a_row("old", a=0.3, b=0.1, gone=0.6), a_row("new", a=0.2, b=0.2, c=0.6), a_row("old", gone=1.0)],
            False,
            [[0.75, 0.25, 0.0], [0.2, 0.2, 0.6], [1 / 3, 1 / 3, 1 / 3]],
        ),
        # Several labels: what nobody has said is open.
        ([a_row("old", a=0.9), a_row("new", a=0.2, b=0.1), a_row()], True, [[0.9, 0.5], [0.2, 0.1], [0.5, 0.5]]),
        # The newest model has said nothing yet.
        ([a_row("old", a=0.9, b=0.1), a_row()], False, [[0.9, 0.1], [0.5, 0.5]]),
    ],
)
def test_each_row_speaks_by_its_own_scores(
    rows: list[PoolRow], multi_label: bool, expected: list[list[float]] | None
) -> None:
    found = probabilities(rows, "new", multi_label=multi_label)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=1e-6)
