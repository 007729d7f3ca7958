"""A consumer's event is new once: after its effect has committed, and not before, whoever asks at the same time."""

import threading

from vesta_common.events.inbox import new_among
from vesta_common.storage.postgres import Postgres


def test_an_event_is_new_once_for_each_consumer(postgres: Postgres) -> None:
    assert postgres.run(lambda connection: new_among(connection, "labels", ["e1"]))
    assert not postgres.run(lambda connection: new_among(connection, "labels", ["e1"]))
    assert postgres.run(lambda connection: new_among(connection, "scores", ["e1"]))


def test_an_event_whose_effect_was_undone_is_still_new(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        assert new_among(connection, "labels", ["e1"])
        connection.rollback()
    assert postgres.run(lambda connection: new_among(connection, "labels", ["e1"]))


def test_of_many_events_the_new_ones_are_told(postgres: Postgres) -> None:
    assert postgres.run(lambda connection: new_among(connection, "labels", ["e1", "e2", "e1"])) == {"e1", "e2"}
    assert postgres.run(lambda connection: new_among(connection, "labels", ["e2", "e3"])) == {"e3"}
    assert postgres.run(lambda connection: new_among(connection, "labels", [])) == set()


def test_a_second_handler_waits_for_the_first(postgres: Postgres) -> None:
    answers: list[set[str]] = []

    def second() -> None:
        answers.append(postgres.run(lambda connection: new_among(connection, "labels", ["e1"])))

    thread = threading.Thread(target=second)
    with postgres.transaction() as connection:
        assert new_among(connection, "labels", ["e1"])
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(10)
    assert answers == [set()]
