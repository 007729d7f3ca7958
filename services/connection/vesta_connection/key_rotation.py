"""Brings the secrets of all sources under the first key: those from before secrets were encrypted, and those of an older key."""

from collections import Counter

import structlog
from vesta_common.errors import FailedPrecondition

from vesta_connection.store import Store

log = structlog.get_logger()


def reseal(store: Store) -> Counter[str]:
    """Encrypts what is not encrypted with the first key, source by source; any number of replicas may do so at once.

    Returns:
        How many secrets were `encrypted`, and for how many that `failed`, which hinders no other.
    """
    outcome: Counter[str] = Counter()
    for name in store.list_sources_to_reseal():
        try:
            outcome["encrypted"] += store.reseal_source(name)
        except FailedPrecondition as error:
            log.warning("source_secret_not_encrypted", source=name, error=str(error))
            outcome["failed"] += 1
    if outcome:
        log.info("source_secrets_encrypted", **outcome)
    return outcome
