"""Temporary folders of running imports and exports. They hold no state: an attempt whose folder is lost starts from the beginning."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vesta_common.errors import FailedPrecondition, Unavailable


@contextmanager
def scratch_folder(work_folder: Path | None, prefix: str) -> Iterator[Path]:
    """Creates a temporary folder, and deletes it on exit.

    Args:
        work_folder: the parent folder, created if missing; the system's temporary folder if None.

    Raises:
        FailedPrecondition: SCRATCH_FOLDER_UNUSABLE, the folder cannot be created.
        Unavailable: SCRATCH_FOLDER_LOST, the folder was deleted while in use; a retry creates a new one.
    """
    try:
        parent = work_folder or Path(tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise FailedPrecondition(
            f"the work folder is not usable: {error}; set VESTA_DATASETS_WORK_FOLDER to a writable folder",
            reason="SCRATCH_FOLDER_UNUSABLE",
        ) from error
    try:
        yield folder
    except Exception as error:
        if not folder.is_dir():  # the error is probably a consequence of the missing folder
            raise Unavailable(
                f"the folder {folder} was deleted while it was in use: {error}", reason="SCRATCH_FOLDER_LOST"
            ) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
