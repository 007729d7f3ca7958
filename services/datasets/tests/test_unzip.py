"""Archives are unpacked into their folder, and nowhere else."""

import stat
import zipfile
from pathlib import Path

import pytest
from vesta_datasets.archives.layout import UnreadableArchiveError
from vesta_datasets.archives.unzip import unpack_zip


def a_zip_of(folder: Path, name: str, mode: int = 0) -> None:
    """Writes `a.zip` with one entry, whose name is not changed."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr(entry, b"content")


@pytest.mark.parametrize("name", ["../x.jpg", "van/../../x.jpg", "/etc/x.jpg", "..", "../files2/x.jpg"])
def test_an_entry_that_leads_outside_is_rejected(tmp_path: Path, name: str) -> None:
    a_zip_of(tmp_path, name)
    with pytest.raises(UnreadableArchiveError, match="is outside of the archive"):
        unpack_zip(tmp_path, ("a.zip", "files"))
    assert not list((tmp_path / "files").iterdir())


def test_a_symbolic_link_is_rejected(tmp_path: Path) -> None:
    a_zip_of(tmp_path, "van/x.jpg", stat.S_IFLNK | 0o777)
    with pytest.raises(UnreadableArchiveError, match="is outside of the archive"):
        unpack_zip(tmp_path, ("a.zip", "files"))


@pytest.mark.parametrize("name", ["van/x.jpg", "./van/x.jpg", "van//x.jpg"])
def test_an_entry_within_the_archive_is_unpacked(tmp_path: Path, name: str) -> None:
    a_zip_of(tmp_path, name)
    unpack_zip(tmp_path, ("a.zip", "files"))
    assert (tmp_path / "files" / "van" / "x.jpg").read_bytes() == b"content"
