"""One call in a child of its own that may read and write the files of one folder, and nothing else."""

import os
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from vesta_common.memory_limit import memory_room_bytes
from vesta_common.sandbox.child import too_costly
from vesta_common.sandbox.confinement import NOBODY
from vesta_common.sandbox.process import (
    Child,
    Limits,
    StartError,
    hide_this_process,
    killed,
    log_missing,
    not_started,
)
from vesta_common.sandbox.shares import shared

log = structlog.get_logger()


def run_in_folder(function: str, folder: Path, argument: Any, limits: Limits, timeout: timedelta) -> Any:
    """The function's answer.

    Args:
        function: `module:name`; takes the folder, under the name that it has in the child, and the argument.
        folder: belongs to the caller alone. Where this process is root, the child is another user, and so the folder with what is
            in it is given to that user.
        limits: less memory where that of the pod is limited.

    Raises:
        InvalidArgument: IMAGE_TOO_COSTLY where it took more memory or time than it may.
        VestaError: whatever the function raised; Internal where that was no error of ours (SANDBOX_FAILED).
    """
    missing = hide_this_process()
    _, limits = shared(memory_room_bytes(), 1, limits)
    module, _, _ = function.partition(":")
    child = Child(limits, [module], folder, as_nobody=_hand_over(folder))
    try:
        log_missing({**missing, **child.await_start()})
        (answer,) = child.call(function, [argument], timeout)
    except StartError as error:
        raise not_started(error) from error
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise (killed() if child.was_killed() else too_costly("more memory or time")) from error
    finally:
        child.release()
    if isinstance(answer, Exception):
        raise answer
    return answer


def log_protections() -> None:
    """Logs which protections the kernel does not grant, for services that have no `Sandbox` to do so at their start."""
    missing = hide_this_process()
    child = Child(Limits(), [])
    try:
        log_missing({**missing, **child.await_start()})
    except StartError as error:
        log.warning("sandbox_child_failed", error=str(error))
    finally:
        child.release()


def _hand_over(folder: Path) -> bool:
    """Gives the folder to the user that children of root become; this process keeps its access as the folder's group."""
    if os.geteuid() != 0:
        return False
    if folder.stat().st_uid == NOBODY:
        return True
    try:
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(Path(parent) / name, NOBODY, -1, follow_symlinks=False)
        os.chown(folder, NOBODY, os.getegid())
        folder.chmod(0o770)
    except PermissionError:
        return False
    return True
