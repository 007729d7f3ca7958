"""Generated code is current."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_GENERATOR = Path(__file__).resolve().parents[3] / "libs" / "contracts" / "generate.py"


def outdated_contracts(root: Path) -> list[str]:
    """The contracts are as `libs/contracts/generate.py` makes them from the protos; it runs in a folder of its own and changes nothing."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        shutil.copytree(root / "protos", scratch / "protos")
        (scratch / "libs" / "contracts").mkdir(parents=True)
        copy = shutil.copy(_GENERATOR, scratch / "libs" / "contracts")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # protoc finds its plugins there
        subprocess.run([sys.executable, copy], check=True, capture_output=True, env={**os.environ, "PATH": path})
        wanted, there = (_contents(folder / "libs" / "contracts" / "vesta_contracts") for folder in (scratch, root))
    return [f"{file} is not current" for file in sorted(wanted.keys() | there) if wanted.get(file) != there.get(file)]


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
