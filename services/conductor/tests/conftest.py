"""Lets the tests import the builders and the simulated platform that lie beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
