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
        """Inserts a taxonomy. Raises psycopg.errors.UniqueViolation if the name exists."""
        queries.insert_taxonomy(
            connection,
            name=taxonomy.name,
            parent=parent_of(taxonomy.name),
            body=body_of(taxonomy),
            now=self._clock.now(),
        )

    def get(self, connection: Connection, name: str, *, lock: bool = False) -> Taxonomy:
        """Returns a taxonomy. Raises NotFound."""
        find = queries.lock_taxonomy if lock else queries.find_taxonomy
        return resource_of(Taxonomy, existing(find(connection, name=name), name))

    def list_page(self, connection: Connection, parent: str, after: str, limit: int) -> list[Taxonomy]:
        """Lists the taxonomies of a project whose names are greater than `after`, ordered by name."""
        rows = queries.list_taxonomies(connection, parent=parent, after=after, limit=limit)
        return [resource_of(Taxonomy, row) for row in rows]

    def update(self, connection: Connection, taxonomy: Taxonomy) -> None:
        queries.update_taxonomy(connection, name=taxonomy.name, body=body_of(taxonomy), now=self._clock.now())

    def delete(self, connection: Connection, name: str) -> None:
        """Deletes a taxonomy. Raises psycopg.errors.ForeignKeyViolation if a dataset uses it."""
        queries.delete_taxonomy(connection, name=name)

    def used_labels(self, connection: Connection, name: str) -> set[str]:
        """Returns the concepts that items have, in all datasets that use the taxonomy."""
        return {row["label"] for row in queries.list_used_labels(connection, taxonomy=name)}
