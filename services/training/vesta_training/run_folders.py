"""The folders in which runs lay what they go on from; whatever process leaves one behind, it goes when its run has ended."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path


def run_folder(work_folder: Path, run: str) -> Path:
    """A run's own folder; it may not be there yet."""
    return work_folder / "runs" / run.replace("/", ".")


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
