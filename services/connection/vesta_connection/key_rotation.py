"""Encrypts the secrets of all sources with the first key: unencrypted secrets of older versions, and those of older keys."""

from collections import Counter

import structlog
from vesta_common.errors import FailedPrecondition

from vesta_connection.store import Store

log = structlog.get_logger()


def rotate_keys(store: Store) -> Counter[str]:
    """Encrypts secrets that are not encrypted with the first key, source by source. Any number of replicas may run it concurrently.

    Returns:
        The number of secrets that were `encrypted` and of those that `failed`. A failure does not affect other secrets.
    """
    outcome: Counter[str] = Counter()
    for name in store.list_sources_to_encrypt():
        try:
            outcome["encrypted"] += store.encrypt_source(name)
        except FailedPrecondition as error:
            log.warning("source_secret_not_encrypted", source=name, error=str(error))
            outcome["failed"] += 1
    if outcome:
        log.info("source_secrets_encrypted", **outcome)
    return outcome
