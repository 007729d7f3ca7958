"""Pretrained detectors in PostgreSQL."""

from collections.abc import Callable
from typing import Any

from vesta_common.clock import Clock
from vesta_common.errors import Unavailable
from vesta_common.resources.methods import existing
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection
from vesta_contracts.training.v1 import PretrainedDetector

from vesta_training.store.statements import queries


class PretrainedDetectors:
    """The table of pretrained detectors."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def insert(
        self, connection: Connection, detector: PretrainedDetector, object_key: str, is_stored: Callable[[str], bool]
    ) -> PretrainedDetector:
        """Inserts a detector, and returns it as it is stored.

        Args:
            is_stored: whether the object store has an object.

        Raises:
            psycopg.errors.UniqueViolation: the name exists.
            Unavailable: the file was deleted in the meantime; a retry stores it again.
        """
        queries.lock_file(connection, object_key=object_key)
        if not is_stored(object_key):
            raise Unavailable(f"{object_key} was deleted with an equal detector", reason="DETECTOR_FILE_DELETED")
        queries.insert_pretrained_detector(
            connection,
            name=detector.name,
            parent=parent_of(detector.name),
            object_key=object_key,
            body=detector.SerializeToString(),
            now=self._clock.now(),
        )
        return self.get(connection, detector.name)

    def get(self, connection: Connection, name: str) -> PretrainedDetector:
        """Returns a detector. Raises NotFound."""
        return _detector(existing(queries.find_pretrained_detector(connection, name=name), name))

    def find_newest(self, connection: Connection, parent: str) -> PretrainedDetector | None:
        """Returns the detector of a project that was imported last; None if there is none."""
        row = queries.find_newest_pretrained_detector(connection, parent=parent)
        return _detector(row) if row else None

    def list_page(self, connection: Connection, parent: str, after: str, limit: int) -> list[PretrainedDetector]:
        """Lists the detectors of a project whose names are greater than `after`, ordered by name."""
        rows = queries.list_pretrained_detectors(connection, parent=parent, after=after, limit=limit)
        return [_detector(row) for row in rows]

    def delete(self, connection: Connection, name: str) -> None:
        """Deletes a detector, and schedules the deletion of its file. Raises NotFound."""
        deleted = existing(queries.delete_pretrained_detector(connection, name=name), name)
        queries.put_file_of_deleted(
            connection, object_key=deleted["object_key"], model_version=name, now=self._clock.now()
        )


def _detector(row: dict[str, Any]) -> PretrainedDetector:
    detector = PretrainedDetector.FromString(bytes(row["body"]))
    detector.create_time.FromDatetime(row["create_time"])
    return detector
