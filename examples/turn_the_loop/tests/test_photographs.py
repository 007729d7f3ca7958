"""Where the demo's pictures come from: the user's folder, the pinned download, or the digits where nothing can be reached."""

import functools
import http.server
import io
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from photographs import main, read_folder, write_digits
from PIL import Image
from samples import find_samples, tree_digest


def a_folder(root: Path, *names: str) -> Path:
    """A folder with an image at each of these paths."""
    for index, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(path)
    return root


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """A server on loopback; takes an archive and answers its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def put(archive: bytes) -> str:
        (folder / "set.tar.gz").write_bytes(archive)
        return f"http://127.0.0.1:{server.server_port}/set.tar.gz"

    yield put
    server.shutdown()
    server.server_close()


@pytest.fixture
def archive(tmp_path: Path, serve: Callable[[bytes], str]) -> tuple[str, str]:
    """The address of an archive of two classes, and the photographs' digest."""
    folder = a_folder(tmp_path / "packed" / "set-1", "train/hat/a.jpg", "train/dress/b.jpg", "test/hat/c.jpg")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(folder, arcname="set-1")
    return serve(packed.getvalue()), tree_digest(folder)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def test_a_folder_a_class_is_read_and_the_test_folder_held_out(tmp_path: Path) -> None:
    found = read_folder(a_folder(tmp_path / "My Images", "train/hat/a.jpg", "valid/dress/b.png", "test/hat/c.jpg"))
    assert (found.name, found.labels, len(found.pool), len(found.test)) == ("my-images", ["dress", "hat"], 2, 1)


def test_a_folder_without_sides_leaves_the_sides_to_the_platform(tmp_path: Path) -> None:
    found = read_folder(a_folder(tmp_path, "hat/a.jpg", "dress/b.jpg"))
    assert (len(found.pool), found.test) == (2, [])


@pytest.mark.parametrize(
    ("names", "labels", "pool", "test"),
    [
        (("set/train/cat/1.jpg", "set/test/cat/2.jpg", "set/test/dog/3.jpg"), ["cat", "dog"], 1, 2),
        (("cat/train/1.jpg", "cat/test/2.jpg", "dog/train/3.jpg"), ["cat", "dog"], 2, 1),
        (("cat/a/1.jpg", "cat/b/2.jpg", "dog/c/3.jpg"), ["cat", "dog"], 3, 0),
        (("training_set/cat/1.jpg", "Test_Set/dog/2.jpg"), ["cat", "dog"], 1, 1),
        (("cat/1.jpg", "dog/2.jpg", ".ipynb_checkpoints/3.jpg", "__MACOSX/cat/._1.jpg"), ["cat", "dog"], 2, 0),
        (("my/images/cat/1.jpg", "my/images/dog/2.jpg"), ["cat", "dog"], 2, 0),
        (("car/1.jpg", "train/2.jpg", "bus/3.jpg"), ["bus", "car", "train"], 3, 0),
        (("seg_train/seg_train/cat/1.jpg", "seg_test/seg_test/dog/2.jpg"), ["cat", "dog"], 1, 1),
        (
            ("seg_train/seg_train/cat/1.jpg", "seg_test/seg_test/dog/2.jpg", "seg_pred/seg_pred/3.jpg"),
            ["cat", "dog"],
            1,
            1,
        ),
        (("train_images/cat/1.jpg", "test_images/dog/2.jpg"), ["cat", "dog"], 1, 1),
        (("bullet_train/1.jpg", "crash_test/b/2.jpg"), ["bullet_train", "crash_test"], 2, 0),
        (("train/cat/1.jpg", "train/dog/2.jpg", "test/3.jpg"), ["cat", "dog"], 2, 0),
        (("cat/train/1.jpg", "cat/test/2.jpg", "dog/3.jpg"), ["cat", "dog"], 2, 1),
        (("set/cat/1.jpg", "set/dog/2.jpg", "logo.png"), ["cat", "dog"], 2, 0),
        (("my/set/train/cat/1.jpg", "my/set/test/dog/2.jpg", "my/logo.png"), ["cat", "dog"], 1, 1),
    ],
)
def test_folders_are_read_as_people_nest_them(
    tmp_path: Path, names: tuple[str, ...], labels: list[str], pool: int, test: int
) -> None:
    found = read_folder(a_folder(tmp_path / "set", *names))
    assert (found.labels, len(found.pool), len(found.test)) == (labels, pool, test)


def test_what_is_only_named_like_an_image_is_none(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "hat/a.jpg", "dress/b.jpg")
    (folder / "hat" / "folder.jpg").mkdir()
    (folder / "hat" / "broken.jpg").symlink_to(folder / "nowhere.jpg")
    assert len(read_folder(folder).pool) == 2


@pytest.mark.parametrize("names", [(), ("a.jpg",), ("hat/a.jpg",)])
def test_a_folder_that_teaches_nothing_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected: at least two"):
        read_folder(a_folder(tmp_path, *names))


def test_the_pinned_photographs_are_downloaded_once(tmp_path: Path, archive: tuple[str, str]) -> None:
    url, digest = archive
    said: list[str] = []
    assert find_samples(tmp_path / "samples", said.append, url, digest).labels == ["dress", "hat"]
    again = find_samples(tmp_path / "samples", said.append, "http://127.0.0.1:1/nowhere", digest)
    assert (again.labels, len(said)) == (["dress", "hat"], 1)


def test_what_a_broken_download_left_behind_does_no_harm(tmp_path: Path, archive: tuple[str, str]) -> None:
    a_folder(tmp_path / "samples" / "clothing.partial" / "left-over", "train/hat/z.jpg")
    assert find_samples(tmp_path / "samples", lambda _: None, *archive).labels == ["dress", "hat"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nonly the beginning",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno gzip..",
        b"no status line\r\n\r\n",
    ],
    ids=["cut", "no archive", "no HTTP"],
)
def test_a_download_that_breaks_off_or_is_none_leads_to_the_digits(tmp_path: Path, answer: bytes) -> None:
    write_digits(tmp_path / "samples" / "digits")
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_answer_once, args=(server, answer), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/set.tar.gz"
        assert len(find_samples(tmp_path / "samples", said.append, url, "0" * 64).labels) == 10
    assert "digits instead" in said[-1]


def _answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


def test_photographs_that_are_not_the_pinned_ones_are_refused_and_not_kept(
    tmp_path: Path, archive: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match="not the pinned data set"):
        find_samples(tmp_path / "samples", lambda _: None, archive[0], "0" * 64)
    assert not (tmp_path / "samples" / "clothing").exists()


def _file(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def _link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([_file("../outside.jpg")], "is outside of the archive"),
        ([_file("set/../../outside.jpg")], "is outside of the archive"),
        ([_file("{tmp}/outside.jpg")], "is outside of the archive"),
        ([_link("set", tarfile.SYMTYPE, "../.."), _file("set/outside.jpg")], "neither a file nor a folder"),
        ([_link("set/a.jpg", tarfile.LNKTYPE, "../../outside.jpg")], "neither a file nor a folder"),
        ([_link("set/pipe", tarfile.FIFOTYPE, "")], "neither a file nor a folder"),
        ([_link("set/null", tarfile.CHRTYPE, "")], "neither a file nor a folder"),
    ],
    ids=["up", "up in between", "absolute", "through a symbolic link", "hard link", "pipe", "device"],
)
def test_an_archive_whose_members_lead_outside_is_refused_and_writes_nothing_there(
    tmp_path: Path, serve: Callable[[bytes], str], members: list[tarfile.TarInfo], why: str
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for member in members:
            member.name = member.name.format(tmp=tmp_path)
            tar.addfile(member, io.BytesIO())
    with pytest.raises(ValueError, match=why):
        find_samples(tmp_path / "samples", lambda _: None, serve(packed.getvalue()), "0" * 64)
    assert not list(tmp_path.rglob("outside.jpg"))
    assert not (tmp_path / "samples" / "clothing").exists()


def test_where_nothing_can_be_reached_the_digits_are_used_and_it_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    found = find_samples(tmp_path / "samples", said.append, "http://127.0.0.1:1/nowhere", "0" * 64)
    assert found.labels == [str(digit) for digit in range(10)]
    assert "digits instead" in said[-1]
    assert write_digits(tmp_path / "samples" / "digits").is_dir()


def test_some_digits_of_each_are_written_where_so_many_are_asked_for(tmp_path: Path) -> None:
    main([str(tmp_path / "digits"), "--per-class", "3"])
    assert [len(list((tmp_path / "digits" / str(digit)).iterdir())) for digit in range(10)] == [3] * 10


@pytest.mark.parametrize("arguments", [["."], ["new", "--per-class", "0"]])
def test_digits_are_not_written_over_what_is_there_nor_none_of_them(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(arguments)
    assert "error:" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
