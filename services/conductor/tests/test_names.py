"""Names that derive from a Loop's name."""

import re

from hypothesis import given
from hypothesis import strategies as st
from vesta_conductor.reconciliation.names import LoopNames, last_segment

PATTERN = r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?"


def test_everything_is_named_after_the_loop() -> None:
    names = LoopNames("projects/acme/loops/vans", "projects/acme/datasets/all")
    assert names.campaign == "projects/acme/campaigns/vans"
    assert names.deployment == "projects/acme/deployments/vans"
    assert names.model == "projects/acme/models/vans"
    assert names.snapshot(3) == "projects/acme/datasets/all/snapshots/vans-r3"
    assert names.run(3, 1) == "projects/acme/trainingRuns/vans-r3"
    assert names.run(3, 2) == "projects/acme/trainingRuns/vans-r3-retry1"
    assert names.embedding_run(1) == "projects/acme/trainingRuns/vans-embedding"


@given(st.from_regex(PATTERN, fullmatch=True), st.integers(1, 10**6), st.integers(1, 99))
def test_every_name_is_a_valid_id_for_loop_names_of_any_length(loop_id: str, number: int, attempt: int) -> None:
    names = LoopNames(f"projects/acme/loops/{loop_id}", "projects/acme/datasets/all")
    for name in (
        names.snapshot(number),
        names.run(number, attempt),
        names.embedding_run(attempt),
        names.embedding_model,
    ):
        assert re.fullmatch(PATTERN, last_segment(name)), name


def test_truncated_names_are_unique() -> None:
    names = [LoopNames(f"projects/acme/loops/{'a' * 62}{end}", "projects/acme/datasets/all") for end in "bc"]
    assert names[0].run(1, 1) != names[1].run(1, 1)
