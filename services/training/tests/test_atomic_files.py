"""Writes of files are atomic."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vesta_training.atomic_files import write_whole


def test_concurrent_writers_never_expose_partial_files(tmp_path: Path) -> None:
    path = tmp_path / "packs" / "a.npz"
    contents = [bytes([number]) * 300_000 for number in range(8)]
    write_whole(path, contents[0])
    with ThreadPoolExecutor(4) as threads:
        writing = [threads.submit(write_whole, path, content) for content in contents * 10]
        while not all(one.done() for one in writing):
            assert path.read_bytes() in contents
    assert [found.name for found in path.parent.iterdir()] == ["a.npz"]
