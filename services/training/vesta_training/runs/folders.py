"""Local folders of runs, for example for checkpoints. They are removed after the run is finished, also if its process has crashed."""

import errno
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vesta_common.errors import FailedPrecondition, Unavailable

LOST = "WORK_FOLDER_LOST"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def run_folder(work_folder: Path, run: str) -> Path:
    """Returns the folder of a run, which may not exist."""
    return work_folder / "runs" / run.replace("/", ".")


@contextmanager
def usable(work_folder: Path, own: Path) -> Iterator[None]:
    """Creates the folder of a run, and converts file errors in the block to errors with a reason.

    Raises:
        Unavailable: WORK_FOLDER_LOST, files were deleted while in use, and a retry creates them again; WORK_FOLDER_FULL, the disk is full.
        FailedPrecondition: WORK_FOLDER_UNUSABLE, the work folder is not writable.
    """
    try:
        own.mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL:
            raise Unavailable(
                f"the disk of the work folder {work_folder} is full; free disk space", reason="WORK_FOLDER_FULL"
            ) from error
        if number in _UNUSABLE:
            raise FailedPrecondition(
                f"the work folder {work_folder} is not usable: {error}; set "
                "VESTA_TRAINING_WORK_FOLDER to a writable folder",
                reason="WORK_FOLDER_UNUSABLE",
            ) from error
        if number == errno.ENOENT or not own.is_dir():  # the error is probably a consequence of the missing folder
            raise Unavailable(
                f"files of the run were deleted from the work folder {work_folder} during the training: {error}",
                reason=LOST,
            ) from error
        raise


def remove_ended(work_folder: Path, list_unfinished: Callable[[], Iterable[str]]) -> None:
    """Removes the folders of finished runs.

    Args:
        list_unfinished: returns the names of the unfinished runs. It is called after the folders are listed. Because a run is claimed
            before its folder is created, the folder of an unfinished run is never removed.
    """
    folders = set((work_folder / "runs").glob("*"))
    if folders:
        for folder in folders - {run_folder(work_folder, run) for run in list_unfinished()}:
            shutil.rmtree(folder, ignore_errors=True)
