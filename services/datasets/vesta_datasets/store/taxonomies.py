"""Taxonomies in PostgreSQL."""

from vesta_common.clock import Clock
from vesta_common.resources.methods import body_of, existing, resource_of
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import Taxonomy

from vesta_datasets.store.statements import queries


class Taxonomies:
    """The table of taxonomies."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def insert(self, connection: Connection, taxonomy: Taxonomy) -> None:
        """Keeps a new taxonomy. Raises psycopg.errors.UniqueViolation where the name is taken."""
        queries.insert_taxonomy(
            connection,
            name=taxonomy.name,
            parent=parent_of(taxonomy.name),
            body=body_of(taxonomy),
            now=self._clock.now(),
        )

    def get(self, connection: Connection, name: str, *, lock: bool = False) -> Taxonomy:
        """A taxonomy. Raises NotFound."""
        find = queries.lock_taxonomy if lock else queries.find_taxonomy
        return resource_of(Taxonomy, existing(find(connection, name=name), name))

    def list_page(self, connection: Connection, parent: str, after: str, limit: int) -> list[Taxonomy]:
        """A project's taxonomies after a name, by name."""
        rows = queries.list_taxonomies(connection, parent=parent, after=after, limit=limit)
        return [resource_of(Taxonomy, row) for row in rows]

    def update(self, connection: Connection, taxonomy: Taxonomy) -> None:
        """Keeps a changed taxonomy."""
        queries.update_taxonomy(connection, name=taxonomy.name, body=body_of(taxonomy), now=self._clock.now())

    def delete(self, connection: Connection, name: str) -> None:
        """Removes a taxonomy. Raises psycopg.errors.ForeignKeyViolation where a dataset uses it."""
        queries.delete_taxonomy(connection, name=name)

    def used_labels(self, connection: Connection, name: str) -> set[str]:
        """Concepts that items bear, of all datasets that use the taxonomy."""
        return {row["label"] for row in queries.list_used_labels(connection, taxonomy=name)}
