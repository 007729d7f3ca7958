"""The processor time of others: what is counted, and which figures are marked."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from figures import OUTSIDE_CORES_MAX, Figure
from processor_time import await_idle, seconds_of

SPIN = "import time\nwhile time.process_time() < 0.5: pass"


def test_processes_that_have_ended_count_as_those_of_their_parent() -> None:
    before = seconds_of(psutil.Process())
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert seconds_of(psutil.Process()) - before >= 0.4


def test_a_measurement_waits_until_the_platform_has_finished_its_work() -> None:
    working = "import time\nwhile time.process_time() < 1.0: pass\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", working]) as program:
        try:
            platform: Any = SimpleNamespace(names=("serving",), supervisor=SimpleNamespace(pid=lambda _: program.pid))
            await_idle(platform, cores_max=0.01)  # on a busy machine, a program at work does not get much more
            assert seconds_of(psutil.Process(program.pid)) >= 0.9
        finally:
            program.kill()


@pytest.mark.parametrize(
    ("cores", "is_disturbed"), [(0.0, False), (OUTSIDE_CORES_MAX, False), (0.11, True), (1.5, True)]
)
def test_a_figure_taken_beside_other_work_is_marked(cores: float, is_disturbed: bool) -> None:
    assert Figure("speed", 1.0, 1.0, lower=True, outside_cores=cores).is_disturbed is is_disturbed
