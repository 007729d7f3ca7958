"""What every broker of a home is asked, whichever it is."""

from contextlib import closing

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from vesta_local.home import Home

REQUEST_TIMEOUT_MS = 5000


def open_admin(home: Home) -> KafkaAdminClient:
    """A client of the broker.

    Raises:
        KafkaError: it does not answer.
    """
    return KafkaAdminClient(
        bootstrap_servers=home.address("events"), request_timeout_ms=REQUEST_TIMEOUT_MS, client_id="vesta-local"
    )


def is_healthy(home: Home) -> bool:
    """True where the broker lists its topics."""
    try:
        with closing(open_admin(home)) as admin:
            admin.list_topics()
    except (KafkaError, OSError, ValueError):
        return False
    return True
