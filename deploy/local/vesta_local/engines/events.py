"""The broker of a home: the embedded one, or Apache Kafka where the home was made with it."""

from vesta_local.engines import apache_kafka, elsewhere, embedded_kafka
from vesta_local.home import Home
from vesta_local.program import Program
from vesta_local.settings import EVENTS


def prepare(home: Home) -> None:
    """Makes what it needs before it starts."""
    if is_apache(home):
        apache_kafka.prepare(home)
    else:
        embedded_kafka.prepare(home)


def program(home: Home) -> Program:
    """The broker."""
    return apache_kafka.program(home) if is_apache(home) else embedded_kafka.program(home)


def is_apache(home: Home) -> bool:
    """Whether it is Apache Kafka, which suppresses the duplicates of a producer and forgets what its topics need not keep.

    One that runs elsewhere is taken for it.
    """
    return home.broker == "apache" or EVENTS in elsewhere.of(home).elsewhere
