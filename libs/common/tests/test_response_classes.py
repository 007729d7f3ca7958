"""No client of Kafka creates a class of responses while another runs."""

import subprocess
import sys

CREATED_LATER = """
import vesta_common.events.broker
from kafka.protocol.api_header import ResponseClassRegistry
unversioned = [registered[None] for registered in ResponseClassRegistry._response_class_registry.values()]
print(len(unversioned), [one.__name__ for one in unversioned if set(range(one.max_version + 1)) - one._VERSIONS.keys()])
"""


def test_every_class_of_every_response_exists_before_a_client_runs() -> None:
    responses, missing = subprocess.check_output([sys.executable, "-c", CREATED_LATER], text=True).split(maxsplit=1)

    assert int(responses) > 40
    assert missing.strip() == "[]"
