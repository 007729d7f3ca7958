"""Programs of services see the packages that their images have."""

import os
import subprocess
import sys
from pathlib import Path

from vesta_local.home import Home
from vesta_local.ports import DEFAULT_PORTS
from vesta_local.services import programs


def test_services_do_not_import_packages_of_development_tools(tmp_path: Path) -> None:
    home = Home(tmp_path, DEFAULT_PORTS)
    home.choose_ports()
    (datasets,) = (program for program in programs(home) if program.name == "datasets")
    command = (
        "import sys, pyarrow, structlog; pyarrow.array([1]); sys.exit('pandas' in sys.modules or 'rich' in sys.modules)"
    )
    environment = {**os.environ, **datasets.environment}
    assert subprocess.run([sys.executable, "-c", command], env=environment).returncode == 0
    # the test would show nothing without these packages: remove one, and its file in the folder, once no tool needs it
    assert subprocess.run([sys.executable, "-c", "import pandas, rich"], capture_output=True).returncode == 0
