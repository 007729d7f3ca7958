"""What a process loads: nothing heavy where it is not needed."""

import subprocess
import sys
from pathlib import Path

LEARNING = ("torch", "sklearn", "onnxruntime", "PIL")


def heavy_modules(root: Path, module: str, heavy: tuple[str, ...]) -> list[str]:
    """Which of the heavy modules a process has after importing a module, which is looked for in `root` first."""
    program = f"import sys; sys.path.insert(0, {str(root)!r}); import {module}; print(*(n for n in {heavy} if n in sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return answer.stdout.split()
