"""Folders for imports and exports under way. They are of no use to anybody later: an attempt that loses its own begins anew."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vesta_common.errors import FailedPrecondition, Unavailable


@contextmanager
def scratch_folder(work_folder: Path | None, prefix: str) -> Iterator[Path]:
    """A folder of the caller's own, which is gone afterwards.

    Args:
        work_folder: where it is made, and made first where it is not there; the system's folder for temporary files if None.

    Raises:
        FailedPrecondition: SCRATCH_FOLDER_UNUSABLE, no folder can be made there.
        Unavailable: SCRATCH_FOLDER_LOST, it was deleted meanwhile; another attempt makes a new one.
    """
    try:
        parent = work_folder or Path(tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise FailedPrecondition(
            f"there is no folder to work in: {error}. Let VESTA_DATASETS_WORK_FOLDER name one that this service may write to",
            reason="SCRATCH_FOLDER_UNUSABLE",
        ) from error
    try:
        yield folder
    except Exception as error:
        if not folder.is_dir():  # then whatever failed may have failed for want of it
            raise Unavailable(
                f"the folder {folder} was deleted while it was used: {error}", reason="SCRATCH_FOLDER_LOST"
            ) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
