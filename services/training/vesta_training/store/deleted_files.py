"""Files of deleted model versions and pretrained detectors in PostgreSQL, until they are deleted from the object store."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from vesta_common.clock import Clock
from vesta_common.storage.postgres import Postgres

from vesta_training.store.statements import queries


@dataclass(frozen=True)
class DeletedFile:
    """A file in the object store that belonged to deleted resources; `versions` are their names."""

    object_key: str
    versions: tuple[str, ...]


class DeletedFiles:
    """The table of the files of deleted versions."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self._postgres = postgres
        self._clock = clock

    def list_due(self, limit: int) -> list[DeletedFile]:
        """Returns files of deleted versions that are due for deletion."""
        with self._postgres.transaction() as connection:
            rows = queries.list_files_of_deleted(connection, now=self._clock.now(), limit=limit)
            return [DeletedFile(row["object_key"], tuple(row["versions"])) for row in rows]

    def delete(self, file: DeletedFile, delete: Callable[[str], None]) -> None:
        """Deletes a file and its row, unless another resource has the file. A lock prevents new ones with the file meanwhile."""
        with self._postgres.transaction() as connection:
            queries.lock_file(connection, object_key=file.object_key)
            row = queries.take_file_of_deleted(connection, object_key=file.object_key)
            if row and not queries.is_file_in_use(connection, object_key=file.object_key):
                delete(file.object_key)

    def postpone(self, file: DeletedFile, delay: timedelta) -> None:
        """Postpones the deletion of a file."""
        with self._postgres.transaction() as connection:
            queries.postpone_file_of_deleted(
                connection, object_key=file.object_key, retry_time=self._clock.now() + delay
            )
