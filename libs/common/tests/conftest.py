"""A database with the tables of vesta_common, which tests of the plumbing fill themselves."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from vesta_common.storage.postgres import Postgres


@pytest.fixture
def postgres(postgres_url: str, postgres_schema: str) -> Iterator[Postgres]:
    postgres = Postgres(postgres_url, postgres_schema, connections_max=12).open(timedelta(seconds=10))
    postgres.migrate()
    yield postgres
    postgres.close()
