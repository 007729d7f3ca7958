"""Lets connections send and receive embeddings."""

from pgvector.psycopg import register_vector
from vesta_common.storage.postgres import Connection


def register_vectors(connection: Connection) -> None:
    """Registers the types of pgvector with a connection, once: this asks the database for each of them."""
    if connection.adapters.types.get("vector") is None:
        register_vector(connection)
