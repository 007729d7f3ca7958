"""Writes zip archives of any number of entries in bounded memory."""

import pickle
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class ZipWriter(zipfile.ZipFile):
    """A zip file that is written once. The directory of entries, which `zipfile` keeps in a list, is kept in a temporary file.

    Entries are stored without compression unless they state another method: images are compressed already. Names must be unique.
    """

    def __init__(self, path: Path) -> None:
        self._directory = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed with the archive
        super().__init__(path, "x", zipfile.ZIP_STORED)
        self.filelist: Any = _Entries(self._directory)
        self.NameToInfo: Any = _NoNames()

    def close(self) -> None:
        """Writes the directory, and closes the file."""
        super().close()
        self._directory.close()


class _Entries:
    """The part of a list that `zipfile` needs for the entries of an archive that is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._count = 0

    def append(self, entry: zipfile.ZipInfo) -> None:
        pickle.dump(entry, self._file)
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[zipfile.ZipInfo]:
        self._file.seek(0)
        for _ in range(self._count):
            yield pickle.load(self._file)  # noqa: S301 - written by `append`


class _NoNames(dict[str, zipfile.ZipInfo]):
    """Keeps no names: they serve only a warning about duplicates."""

    def __setitem__(self, name: str, entry: zipfile.ZipInfo) -> None:
        return
