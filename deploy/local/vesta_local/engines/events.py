"""The broker of a home: the embedded one, or Apache Kafka if the home was created with it."""

from vesta_local.engines import apache_kafka, embedded_kafka, external_engines
from vesta_local.home import Home
from vesta_local.program import Program
from vesta_local.settings import EVENTS


def prepare(home: Home) -> None:
    """Prepares the broker before it starts."""
    if is_apache(home):
        apache_kafka.prepare(home)
    else:
        embedded_kafka.prepare(home)


def program(home: Home) -> Program:
    return apache_kafka.program(home) if is_apache(home) else embedded_kafka.program(home)


def is_apache(home: Home) -> bool:
    """Whether the broker is Apache Kafka, which supports idempotent producers and retention. True for an external broker."""
    return home.broker == "apache" or EVENTS in external_engines.of(home).external
