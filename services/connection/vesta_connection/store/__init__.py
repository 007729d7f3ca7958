"""The database layer: PostgreSQL. This module stores Sources; no other package contains SQL."""

from typing import Any

from vesta_common.clock import Clock
from vesta_common.messages import copy_of
from vesta_common.resources.methods import body_of, existing, resource_of
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.connection.v1 import Source

from vesta_connection.store.statements import queries
from vesta_connection.store.syncs import SERVICE, Syncs
from vesta_connection.vault import Sealed, Vault

__all__ = ["SERVICE", "Store"]


class Store:
    """Reads and writes the service's tables.

    Args:
        vault: encrypts the secrets of sources.
    """

    def __init__(self, postgres: Postgres, clock: Clock, vault: Vault) -> None:
        self.postgres = postgres
        self._clock = clock
        self._vault = vault
        self.syncs = Syncs(postgres, clock)

    def insert_source(self, connection: Connection, source: Source, secret: str) -> None:
        """Inserts a Source.

        Raises:
            psycopg.errors.UniqueViolation: the name is taken.
            FailedPrecondition: SECRET_KEYS_MISSING.
        """
        sealed = self._vault.seal(secret)
        queries.insert_source(
            connection,
            name=source.name,
            parent=parent_of(source.name),
            body=_body(source),
            secret_key_id=sealed.key_id,
            secret_token=sealed.token,
            now=self._clock.now(),
        )

    def get_source(self, connection: Connection, name: str) -> Source:
        """Returns a Source without its secret.

        Raises:
            NotFound: it does not exist.
        """
        return resource_of(Source, existing(queries.find_source(connection, name=name), name))

    def get_source_with_secret(self, name: str) -> tuple[Source, str]:
        """Returns a Source and its secret.

        Raises:
            NotFound: it does not exist.
            FailedPrecondition: SECRET_UNREADABLE.
        """
        with self.postgres.transaction() as connection:
            row = existing(queries.find_source(connection, name=name), name)
        return resource_of(Source, row), self._vault.open(_sealed(row))

    def lock_source(self, connection: Connection, name: str) -> tuple[Source, Sealed]:
        """Returns a Source and its encrypted secret, and locks its row until the transaction ends.

        Raises:
            NotFound: it does not exist.
        """
        row = existing(queries.lock_source(connection, name=name), name)
        return resource_of(Source, row), _sealed(row)

    def list_sources(self, connection: Connection, parent: str, after: str, limit: int) -> list[Source]:
        """Returns a project's Sources with a name greater than `after`, ordered by name."""
        return [
            resource_of(Source, row)
            for row in queries.list_sources(connection, parent=parent, after=after, limit=limit)
        ]

    def update_source(self, connection: Connection, source: Source, sealed: Sealed) -> None:
        """Updates a Source.

        Args:
            sealed: its stored secret, as returned by `lock_source`; used if the update contains no new secret.

        Raises:
            FailedPrecondition: SECRET_KEYS_MISSING.
        """
        if source.bucket.secret_access_key:
            sealed = self._vault.seal(source.bucket.secret_access_key)
        queries.update_source(
            connection,
            name=source.name,
            body=_body(source),
            secret=sealed.token if sealed.is_plain else "",
            secret_key_id=sealed.key_id,
            secret_token="" if sealed.is_plain else sealed.token,
            now=self._clock.now(),
        )

    def list_sources_to_encrypt(self) -> list[str]:
        """Returns the names of Sources whose secret is not encrypted with the first key."""
        with self.postgres.transaction() as connection:
            rows = queries.list_sources_to_encrypt(connection, secret_key_id=self._vault.first_key_id)
        return [row["name"] for row in rows]

    def encrypt_source(self, name: str) -> bool:
        """Encrypts a Source's secret with the first key; returns False if another replica did so or the Source was deleted.

        Raises:
            FailedPrecondition: SECRET_UNREADABLE, SECRET_KEYS_MISSING.
        """
        with self.postgres.transaction() as connection:
            row = queries.lock_source(connection, name=name)
            if row is None or self._vault.is_current(_sealed(row)):
                return False
            sealed = self._vault.seal(self._vault.open(_sealed(row)))
            queries.encrypt_source(connection, name=name, secret_key_id=sealed.key_id, secret_token=sealed.token)
        return True

    def delete_source(self, connection: Connection, name: str) -> None:
        """Deletes a Source with its Syncs."""
        queries.delete_source(connection, name=name)


def _sealed(row: dict[str, Any]) -> Sealed:
    """Returns the secret of a row, which may be unencrypted in rows of older versions."""
    return Sealed("", row["secret"]) if row["secret"] else Sealed(row["secret_key_id"], row["secret_token"])


def _body(source: Source) -> bytes:
    """Serializes a Source without its secret, times and etag."""
    stored = copy_of(source)
    if stored.WhichOneof("kind") == "bucket":
        stored.bucket.secret_access_key = ""
    return body_of(stored)
