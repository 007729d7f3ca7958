"""Retention of the request log: old entries are deleted in batches while the gateway runs."""

from datetime import UTC, datetime, timedelta

import psycopg
from vesta_common.storage.postgres import Postgres
from vesta_gateway.store import request_log

LONG = timedelta(days=60)  # a gateway that has just started may delete older requests at any moment


def requests_in(settings):
    with psycopg.connect(settings.postgres_url, options=f"-c search_path={settings.postgres_schema}") as connection:
        return {row[0] for row in connection.execute("SELECT request_id FROM request_log")}


def write(settings, request_id, age):
    with psycopg.connect(settings.postgres_url, options=f"-c search_path={settings.postgres_schema}") as connection:
        connection.execute(
            "INSERT INTO request_log (method, request_id, request_digest, create_time) VALUES ('m', %s, '', %s)",
            (request_id, datetime.now(UTC) - age),
        )


def test_a_gateway_that_starts_deletes_requests_older_than_the_retention(start_gateway):
    first = start_gateway()
    for request_id, age in (("old", timedelta(days=3)), ("young", timedelta(days=1))):
        write(first.settings, request_id, age)

    second = start_gateway(postgres_schema=first.settings.postgres_schema, request_log_retention=timedelta(days=2))

    second.until(lambda: requests_in(first.settings) == {"young"})


def test_old_requests_are_deleted_in_batches_with_one_transaction_each(start_gateway):
    running = start_gateway(request_log_retention=LONG)
    for number in range(5):
        write(running.settings, str(number), timedelta(days=8))
    write(running.settings, "held", timedelta(days=8))
    write(running.settings, "young", timedelta(days=6))
    postgres = Postgres(running.settings.postgres_url, running.settings.postgres_schema, 2).open()
    with psycopg.connect(
        running.settings.postgres_url, options=f"-c search_path={running.settings.postgres_schema}"
    ) as other:
        other.execute("SELECT FROM request_log WHERE request_id = 'held' FOR UPDATE")

        deleted = request_log.prune(postgres, datetime.now(UTC), timedelta(days=7), batch_max=2)

    postgres.close()
    assert deleted == 5
    assert requests_in(running.settings) == {"held", "young"}


def test_pruning_ends_before_the_next_batch_when_the_gateway_stops(start_gateway):
    running = start_gateway(request_log_retention=LONG)
    write(running.settings, "old", timedelta(days=8))
    postgres = Postgres(running.settings.postgres_url, running.settings.postgres_schema, 2).open()

    deleted = request_log.prune(postgres, datetime.now(UTC), timedelta(days=7), is_stopping=lambda: True)

    postgres.close()
    assert deleted == 0
    assert requests_in(running.settings) == {"old"}
