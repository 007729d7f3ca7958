"""The service starts fast and with little memory: heavy modules are imported by the first call that needs them."""

import subprocess
import sys

HEAVY = ("sklearn", "scipy", "pycocotools", "yaml")
SCRIPT = f"import sys, vesta_datasets.app; print([name for name in {HEAVY!r} if name in sys.modules])"


def test_starting_imports_nothing_that_only_some_calls_need() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"
