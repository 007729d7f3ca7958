"""Which tests a run selects, by broker: tests with events run on both, broker-specific tests on one only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from vesta_local.home import BROKERS

TESTS = """
import pytest

def test_without_events(): ...
def test_with_a_topic(create_topics): ...
def test_with_the_address(kafka_broker): ...
def test_with_a_platform(platform): ...
@pytest.mark.no_events
def test_with_the_doors_of_a_platform(platform): ...
@pytest.fixture
def own(broker_kind): ...
def test_with_a_platform_of_its_own(own): ...
@pytest.mark.embedded_kafka
def test_of_the_embedded_broker(create_topics): ...
@pytest.mark.apache_kafka
def test_of_apache_kafka(): ...
"""
TOUCHING = {"with_a_topic", "with_the_address", "with_a_platform", "with_a_platform_of_its_own"}
UNTOUCHED = {"without_events", "with_the_doors_of_a_platform"}
CHOSEN = {
    "embedded": TOUCHING | UNTOUCHED | {"of_the_embedded_broker"},
    "apache": TOUCHING | {"of_apache_kafka"},
}


@pytest.mark.parametrize("broker", BROKERS)
def test_a_run_takes_the_tests_of_its_broker_and_on_apache_kafka_those_alone_that_touch_events(
    broker: str, tmp_path: Path
) -> None:
    (tmp_path / "test_sample.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n no_events: x\n embedded_kafka: x\n apache_kafka: x\n own_engines: x\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "vesta_local.testing", "--collect-only", "-q", f"--kafka={broker}"]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # others take seconds to load
    found = subprocess.run(command, cwd=tmp_path, env=alone, check=True, capture_output=True, text=True, timeout=60)
    chosen = {line.partition("::test_")[2] for line in found.stdout.splitlines() if "::" in line}
    assert chosen == CHOSEN[broker], found.stderr
