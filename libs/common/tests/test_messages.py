"""Copies share nothing with what they are copies of, and times follow their columns."""

from datetime import UTC, datetime

from vesta_common.messages import copy_of, set_times, without
from vesta_contracts.datasets.v1 import Taxonomy
from vesta_contracts.training.v1 import TrainingRun

VANS = Taxonomy(name="projects/acme/taxonomies/vans", display_name="Vans", etag="e")
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def test_a_copy_has_the_fields_that_were_given_and_leaves_its_original_alone() -> None:
    copy = copy_of(VANS, name="projects/acme/taxonomies/cars")
    copy.concepts.add(id="red")
    assert (copy.name, copy.display_name) == ("projects/acme/taxonomies/cars", "Vans")
    assert (VANS.name, len(VANS.concepts)) == ("projects/acme/taxonomies/vans", 0)


def test_a_copy_without_fields_keeps_the_others() -> None:
    assert without(VANS, "etag", "name") == Taxonomy(display_name="Vans")
    assert VANS.etag == "e"


def test_times_are_set_from_their_columns_and_an_empty_column_leaves_its_field_unset() -> None:
    run = TrainingRun()
    set_times(run, {"create_time": NOON, "end_time": None, "name": "x"}, "create_time", "end_time")
    assert run.create_time.ToDatetime(UTC) == NOON
    assert not run.HasField("end_time")
