"""Runs a single call in a new child that may read and write the files of one folder only."""

import os
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from vesta_common.memory_limit import memory_limit_bytes
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
    """Runs a function in a new child and returns its result.

    Args:
        function: `module:name`; receives the folder's path as seen by the child, and the argument.
        folder: exclusively the caller's. If this process runs as root, the child runs as another user, and the folder with its content is
            given to that user.
        limits: the memory limit is reduced if the pod's memory is limited.

    Raises:
        InvalidArgument: IMAGE_TOO_EXPENSIVE, the call exceeded its memory or time limit.
        VestaError: any VestaError of the function; Internal (SANDBOX_FAILED) for other errors.
    """
    missing = hide_this_process()
    _, limits = shared(memory_limit_bytes(), 1, limits)
    module, _, _ = function.partition(":")
    child = Child(limits, [module], folder, as_nobody=_hand_over(folder))
    try:
        log_missing({**missing, **child.await_start()})
        (result,) = child.call(function, [argument], timeout)
    except StartError as error:
        raise not_started(error) from error
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise (killed() if child.was_killed() else too_costly("memory or time")) from error
    finally:
        child.release()
    if isinstance(result, Exception):
        raise result
    return result


def log_protections() -> None:
    """Logs the protections that the kernel does not support. For services that do not create a `Sandbox`, which logs them itself."""
    missing = hide_this_process()
    child = Child(Limits(), [])
    try:
        log_missing({**missing, **child.await_start()})
    except StartError as error:
        log.warning("sandbox_child_failed", error=str(error))
    finally:
        child.release()


def _hand_over(folder: Path) -> bool:
    """Gives the folder to the user that children of root run as. This process keeps its access through the folder's group."""
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
