"""How long a deployment waits after failures."""

from datetime import UTC, datetime, timedelta

from vesta_serving.penalties import PENALTY_FIRST, PENALTY_MAX, Penalties, penalty

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_penalty_doubles_up_to_its_limit() -> None:
    assert [penalty(failures) for failures in (1, 2, 3, 100)] == [
        PENALTY_FIRST,
        2 * PENALTY_FIRST,
        4 * PENALTY_FIRST,
        PENALTY_MAX,
    ]


def test_a_deployment_waits_until_its_penalty_has_passed_and_a_success_forgets_its_failures() -> None:
    penalties = Penalties()
    penalties.failed("vans", NOW)
    assert penalties.waiting(NOW) == ["vans"]
    assert penalties.waiting(NOW + PENALTY_FIRST) == []

    penalties.succeeded("vans")
    penalties.failed("vans", NOW)
    assert penalties.waiting(NOW + PENALTY_FIRST - timedelta(milliseconds=1)) == ["vans"]
    assert penalties.waiting(NOW + PENALTY_FIRST) == []
