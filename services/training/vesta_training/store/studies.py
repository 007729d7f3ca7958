"""Studies in PostgreSQL."""

from datetime import datetime
from typing import Any

from vesta_common.clock import Clock
from vesta_common.messages import set_times
from vesta_common.resources.methods import existing
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection
from vesta_contracts.training.v1 import Study

from vesta_training.store.statements import queries


class Studies:
    """The table of studies."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def insert(self, connection: Connection, study: Study) -> None:
        """Inserts a study. Raises psycopg.errors.UniqueViolation if the name exists."""
        queries.insert_study(
            connection,
            name=study.name,
            parent=parent_of(study.name),
            body=study.SerializeToString(),
            now=self._clock.now(),
        )

    def get(self, connection: Connection, name: str) -> tuple[Study, bool]:
        """Returns a study as it was created, and whether it was cancelled. Raises NotFound."""
        return _study(existing(queries.find_study(connection, name=name), name))

    def list_page(
        self, connection: Connection, parent: str, before: tuple[datetime, str], limit: int
    ) -> list[tuple[Study, bool]]:
        """Lists the studies of a project, newest first, starting after `before`."""
        rows = queries.list_studies(
            connection, parent=parent, before_time=before[0], before_name=before[1], limit=limit
        )
        return [_study(row) for row in rows]

    def delete(self, connection: Connection, name: str) -> None:
        """Deletes a study. Its runs are kept."""
        queries.delete_study(connection, name=name)

    def cancel(self, connection: Connection, name: str) -> None:
        """Marks a study as cancelled."""
        queries.cancel_study(connection, name=name)


def _study(row: dict[str, Any]) -> tuple[Study, bool]:
    study = Study.FromString(bytes(row["body"]))
    set_times(study, row, "create_time")
    return study, row["cancelled"]
