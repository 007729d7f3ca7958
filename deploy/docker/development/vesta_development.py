"""In images that Skaffold builds, our packages run from /tmp/code, where it copies what was changed: all else in a pod is read-only.

Python imports this at its start. What was copied outlives a restart of the container, but not the pod, whose new image has the change.
"""

import shutil
import sys
from pathlib import Path

CODE = Path("/tmp/code")

if not CODE.exists():
    draft = CODE.with_name(f"{CODE.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    for package in Path(__file__).parent.glob("vesta_*/"):
        if not package.name.endswith(".dist-info"):
            shutil.copytree(package, draft / package.name)
    draft.rename(CODE)
sys.path.insert(0, str(CODE))
