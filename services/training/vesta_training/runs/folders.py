"""The folders in which runs lay what they go on from; whatever process leaves one behind, it goes when its run has ended."""

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
    """A run's own folder; it may not be there yet."""
    return work_folder / "runs" / run.replace("/", ".")


@contextmanager
def usable(work_folder: Path, own: Path) -> Iterator[None]:
    """Makes a run's own folder, and says what is wrong where it, or what is shared beside it, cannot be used.

    Raises:
        Unavailable: WORK_FOLDER_LOST, files of it were deleted meanwhile, and another attempt makes them again;
            WORK_FOLDER_FULL, its disk has no space left.
        FailedPrecondition: WORK_FOLDER_UNUSABLE, nothing can be written there.
    """
    try:
        own.mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL:
            raise Unavailable(
                f"the disk of the work folder {work_folder} is full; make space there", reason="WORK_FOLDER_FULL"
            ) from error
        if number in _UNUSABLE:
            raise FailedPrecondition(
                f"the work folder {work_folder} cannot be used: {error}; let VESTA_TRAINING_WORK_FOLDER name a folder "
                "that this service may write to",
                reason="WORK_FOLDER_UNUSABLE",
            ) from error
        if number == errno.ENOENT or not own.is_dir():  # then whatever failed may have failed for want of it
            raise Unavailable(
                f"files of the run were deleted from the work folder {work_folder} while it was trained: {error}",
                reason=LOST,
            ) from error
        raise


def remove_ended(work_folder: Path, going_on: Callable[[], Iterable[str]]) -> None:
    """Removes the folders of all runs but these.

    Args:
        going_on: answers the names of the runs that have not ended. It is asked after the folders are listed: a run is claimed
            before it has a folder, so none of a run in hand is taken for an ended one's.
    """
    folders = set((work_folder / "runs").glob("*"))
    if folders:
        for folder in folders - {run_folder(work_folder, run) for run in going_on()}:
            shutil.rmtree(folder, ignore_errors=True)
