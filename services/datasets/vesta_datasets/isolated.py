"""Runs the reading and writing of archives in a process that finds none of our credentials and can take only so much.

The child has an empty environment, a home that is gone afterwards, and limits on memory, processor time and the size of what it
writes. Call and answer are JSON files: what a child that was taken over answers can run nothing here.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from vesta_datasets.archived import UnreadableArchiveError


@dataclass(frozen=True)
class Limits:
    """What one call may take.

    Attributes:
        memory_bytes_max: of address space.
        cpu_seconds_max: of processor time.
        file_bytes_max: of each file that it writes.
        timeout: of the whole call.
    """

    memory_bytes_max: int = 4 * 1024**3
    cpu_seconds_max: int = 15 * 60
    file_bytes_max: int = 1024**3
    timeout: timedelta = timedelta(minutes=30)


def run_isolated(function: str, *arguments: Any, limits: Limits = Limits()) -> Any:
    """The answer of a function for arguments, both of what JSON carries.

    Args:
        function: `module:name`, to be imported by the child.

    Raises:
        UnreadableArchiveError: it raised an error, or took more than it may.
    """
    with tempfile.TemporaryDirectory(prefix="vesta-isolated-") as home:
        call, answer = Path(home) / "call.json", Path(home) / "answer.json"
        bounds = [limits.memory_bytes_max, limits.cpu_seconds_max, limits.file_bytes_max]
        call.write_text(json.dumps({"function": function, "arguments": arguments, "bounds": bounds}))
        command = [sys.executable, "-m", "vesta_datasets.isolated", str(call), str(answer)]
        try:
            ended = subprocess.run(
                command,
                env=_environment(home),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=limits.timeout.total_seconds(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _too_costly() from None
        if ended.returncode or not answer.is_file():
            raise _too_costly()
        told = json.loads(answer.read_text())
    if "error" in told:
        raise UnreadableArchiveError(str(told["error"]))
    return told["answer"]


def _too_costly() -> UnreadableArchiveError:
    return UnreadableArchiveError("the archive takes more memory or time than one may; split it into smaller ones")


def _environment(home: str) -> dict[str, str]:
    """Nothing of ours but where modules lie."""
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "HOME": home,
        "TMPDIR": home,
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def _main(call: Path, answer: Path) -> None:
    """The child: confines itself before it imports anything that reads."""
    told = json.loads(call.read_text())
    for limit, bound in zip(
        (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE), told["bounds"], strict=True
    ):
        resource.setrlimit(limit, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, _, name = told["function"].partition(":")
    try:
        function: Callable[..., Any] = getattr(import_module(module), name)
        found = {"answer": function(*told["arguments"])}
    except UnreadableArchiveError as error:
        found = {"error": str(error)}
    except MemoryError:
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - whatever it is, the person who brought the archive hears of it
        found = {"error": f"Datumaro fails at the archive: {_innermost(error)}"}
    answer.write_text(json.dumps(found))


def _innermost(error: BaseException) -> BaseException:
    """What was wrong first; Datumaro wraps it several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
