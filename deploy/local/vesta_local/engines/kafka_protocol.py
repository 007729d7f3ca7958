"""Health check and admin client of the broker, for every kind of broker."""

from contextlib import closing

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from vesta_local.home import Home

REQUEST_TIMEOUT_MS = 5000


def open_admin(home: Home) -> KafkaAdminClient:
    """Returns an admin client of the broker.

    Raises:
        KafkaError: the broker does not respond.
    """
    return KafkaAdminClient(
        bootstrap_servers=home.address("events"), request_timeout_ms=REQUEST_TIMEOUT_MS, client_id="vesta-local"
    )


def is_healthy(home: Home) -> bool:
    """Whether the broker lists its topics."""
    try:
        with closing(open_admin(home)) as admin:
            admin.list_topics()
    except (KafkaError, OSError, ValueError):
        return False
    return True
