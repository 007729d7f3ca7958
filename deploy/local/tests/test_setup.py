"""`make setup` prints what it will download, shows its progress, and uses the wanted build of torch if available."""

import functools
import hashlib
import http.server
import io
import json
import sys
import threading
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pip
import pytest
from vesta_local.setup.downloads import (
    Download,
    IndexFile,
    Pin,
    files_of,
    format_plan,
    installed_versions,
    not_installed,
    plan_downloads,
    read_pins,
    wheel_of,
)
from vesta_local.setup.lock import HEAD, lock_text
from vesta_local.setup.pip_progress import PipState, run_pip
from vesta_local.setup.torch_builds import CPU, CUDA, choose

TORCH = Pin("torch", "2.14.1")
NOWHERE = "http://127.0.0.1:1/whl/cpu"
TAG = f"cp3{sys.version_info.minor}-cp3{sys.version_info.minor}-linux_x86_64"
Serve = Callable[..., str]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without logging; JSON files with the content type of an index."""

    extensions_map: ClassVar = {".json": "application/vnd.pypi.simple.v1+json", ".html": "text/html"}

    def do_GET(self) -> None:
        """Returns the JSON of a folder's index if there is one."""
        if (Path(self.translate_path(self.path)) / "index.json").exists():
            self.path += "index.json"
        super().do_GET()

    def log_message(self, *arguments: object) -> None:
        """Suppresses the log."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves wheels (file name: dependencies) as an index on loopback; returns its address. `tells_sizes` adds sizes (PEP 700)."""
    servers = []

    def start(wheels: dict[str, list[str]], *, tells_sizes: bool = False) -> str:
        root = tmp_path / f"index-{len(servers)}"
        for name, needs in wheels.items():
            project, version = name.split("-")[:2]
            folder = root / project.replace("_", "-")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(_wheel(project, version, needs))
        for folder in root.iterdir():
            files = sorted(folder.glob("*.whl"))
            if tells_sizes:
                files_of = [{"filename": file.name, "url": file.name, "hashes": {}, "size": 1000} for file in files]
                (folder / "index.json").write_text(json.dumps({"meta": {"api-version": "1.1"}, "files": files_of}))
            else:
                links = "".join(
                    f'<a href="{file.name.replace("+", "%2B")}#sha256={_sha256(file)}">x</a>' for file in files
                )
                (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
        handler = functools.partial(Handler, directory=str(root))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _wheel(project: str, version: str, needs: list[str]) -> bytes:
    packed, info = io.BytesIO(), f"{project}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n{requires}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
        wheel.writestr(f"{info}/RECORD", "")
    return packed.getvalue()


def test_the_cpu_build_is_taken_from_its_index_where_that_has_it(serve: Serve) -> None:
    index = serve({f"torch-2.14.1+cpu-{TAG}.whl": [], f"torch-2.13.0+cpu-{TAG}.whl": []})
    said: list[str] = []
    build = choose(CPU, TORCH, "", said.append, index)
    assert (build.kind, build.constraint, build.index, said) == (CPU, "torch==2.14.1+cpu", index, [])


def test_where_the_index_of_cpu_builds_cannot_be_reached_it_is_said_and_the_usual_build_is_taken() -> None:
    said: list[str] = []
    build = choose(CPU, TORCH, "", said.append, NOWHERE)
    assert (build.kind, build.index) == (CUDA, "")
    assert "cannot be reached" in said[0]
    assert "with CUDA, instead" in said[0]


@pytest.mark.parametrize("name", [f"torch-2.13.0+cpu-{TAG}.whl", "torch-2.14.1+cpu-cp38-cp38-linux_x86_64.whl"])
def test_where_the_index_has_no_build_for_this_version_or_python_the_usual_one_is_taken(
    serve: Serve, name: str
) -> None:
    said: list[str] = []
    assert choose(CPU, TORCH, "", said.append, serve({name: []})).kind == CUDA
    assert "has no torch 2.14.1+cpu" in said[0]


@pytest.mark.parametrize(
    ("wanted", "installed", "kind"),
    [
        ("", "", CUDA),
        ("", "2.14.1", CUDA),
        ("", "2.14.1+cpu", CPU),
        (CUDA, "2.14.1+cpu", CUDA),
        (CPU, "2.14.1+cpu", CPU),
    ],
)
def test_the_kind_that_is_installed_stays_unless_another_is_wanted(wanted: str, installed: str, kind: str) -> None:
    assert choose(wanted, TORCH, installed, lambda _: None, NOWHERE).kind == kind


def test_a_cpu_build_brings_no_cuda_libraries_though_the_lock_pins_them_and_going_back_does(
    serve: Serve, tmp_path: Path
) -> None:
    usual = serve(
        {
            f"torch-2.14.1-{TAG}.whl": ["nvidia-cublas==13.1"],
            "nvidia_cublas-13.1-py3-none-any.whl": [],
        }
    )
    cpu = serve({f"torch-2.14.1+cpu-{TAG}.whl": []})
    lock = tmp_path / "lock.txt"
    lock.write_text("torch==2.14.1\nnvidia-cublas==13.1\n")
    site = _environment(tmp_path / "venv")
    found, said = [], []
    for wanted in (CPU, CUDA, CPU):
        build = choose(wanted, TORCH, installed_versions([str(site)]).get("torch", ""), said.append, cpu)
        (tmp_path / "more.txt").write_text(build.constraint)
        indexes = ["--no-cache-dir", "--index-url", usual, *(["--extra-index-url", build.index] if build.index else [])]
        constraints = ["--constraint", str(lock), "--constraint", str(tmp_path / "more.txt")]
        out = io.StringIO()
        run_pip(tmp_path / "venv/bin/python", [*indexes, *constraints, "torch"], site, out)
        versions = installed_versions([str(site)])
        found.append((versions["torch"], "nvidia-cublas" in versions))
    assert said == []
    assert found == [("2.14.1+cpu", False), ("2.14.1", True), ("2.14.1+cpu", True)]  # set-up then removes what is left
    assert "installing: 1 of 1 packages" in out.getvalue()


def _environment(folder: Path) -> Path:
    """Creates an empty virtual environment with the installed pip; returns its site-packages."""
    venv.create(folder, with_pip=False)
    site = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (site / "pip").symlink_to(Path(pip.__file__).parent)
    return site


def test_what_pip_says_last_is_shown_where_it_fails(serve: Serve, tmp_path: Path) -> None:
    site = _environment(tmp_path / "venv")
    index = serve({f"torch-2.14.1-{TAG}.whl": []})
    with pytest.raises(
        RuntimeError, match=r"pip failed with status 1(?s:.*)No matching distribution found for torch==9"
    ):
        run_pip(tmp_path / "venv/bin/python", ["--index-url", index, "torch==9"], site, io.StringIO())


@pytest.mark.parametrize("tells_sizes", [True, False])
def test_the_plan_tells_the_size_of_each_package(serve: Serve, *, tells_sizes: bool) -> None:
    name = f"torch-2.14.1-{TAG}.whl"
    index = serve({name: [], "torch-2.13.0-py3-none-any.whl": []}, tells_sizes=tells_sizes)
    (download,) = plan_downloads([TORCH], lambda _: index)
    assert download.size_bytes == (1000 if tells_sizes else len(_wheel("torch", "2.14.1", [])))
    assert {file.filename for file in files_of(index, "torch")} == {name, "torch-2.13.0-py3-none-any.whl"}


def test_a_size_that_no_index_gives_is_shown_as_unknown() -> None:
    downloads = plan_downloads([TORCH], lambda _: NOWHERE)
    assert downloads == [Download(TORCH, None)]
    assert "1 of unknown size" in format_plan(downloads)


def test_the_table_names_the_large_ones_and_says_how_to_do_without_cuda() -> None:
    sizes = {
        "torch": 555_000_000,
        "nvidia-cublas": 1_200_000_000,
        "triton": 200_000_000,
        "tritonclient": 60_000_000,
        "six": 1,
        "rich": 9_000_000,
    }
    sizes = {"torch": 555_000_000, "nvidia-cublas": 1_200_000_000, "triton": 200_000_000, "tritonclient": 60_000_000}
    small = {"six": 1, "rich": 9_000_000}
    downloads = [Download(Pin(name, "1"), size) for name, size in (sizes | small).items()]
    lines = format_plan(downloads).splitlines()
    assert lines[0] == "To download: 6 packages, 2.0 GB"
    assert [line.split() for line in lines[1:6]] == [
        ["nvidia-cublas", "1.2", "GB"],
        ["torch", "555", "MB"],
        ["triton", "200", "MB"],
        ["tritonclient", "60", "MB"],
        ["2", "others", "9", "MB"],
    ]
    assert lines[6].startswith("1.4 GB of it are CUDA libraries")
    assert "make setup torch=cpu" in lines[6]
    assert "torch=cpu" not in format_plan(downloads, is_cpu_requested=True)


def test_only_what_is_not_installed_in_its_version_is_missing() -> None:
    pins = read_pins(["# head", "A_b==1", "torch==2.14.1", "rich==15.0.0", ""])
    assert not_installed(pins, {"a-b": "1", "torch": "2.14.1+cpu", "rich": "14.0"}) == [Pin("rich", "15.0.0")]


def test_of_several_wheels_that_fit_the_most_special_one_is_chosen_and_a_source_archive_last() -> None:
    names = ["x-1.tar.gz", "x-1-py3-none-any.whl", f"x-1-{TAG}.whl", "x-2-py3-none-any.whl", "no wheel.whl"]
    files = [IndexFile(name, name, None) for name in names]
    assert wheel_of(files, Pin("x", "1")) == files[2]
    assert wheel_of(files[:1], Pin("x", "1")) == files[0]
    assert wheel_of(files[3:], Pin("x", "1")) is None


def test_progress_follows_what_pip_prints() -> None:
    state = PipState()
    texts = []
    for line in (
        "Collecting torch",
        "  Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (30 kB)",
        "Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (554.6 MB)",
        "Progress 100000000 of 554600000",
        "Progress 554600000 of 554600000",
        "Downloading https://files.example/a/six-1.17.0-py2.py3-none-any.whl (11 kB)",
        "Installing collected packages: six, torch",
    ):
        state.take(line)
        texts.append(state.text(1))
    assert texts == [
        "looking up what is needed",
        "looking up what is needed",
        "downloading: 0 MB so far (torch, 0 MB of 0 MB)",
        "downloading: 100 MB so far (torch, 100 MB of 555 MB)",
        "downloading: 555 MB so far (torch, 555 MB of 555 MB)",
        "downloading: 555 MB so far (six, 0 MB of 0 MB)",
        "installing: 1 of 2 packages",
    ]


def test_the_lock_keeps_the_pins_of_cuda_where_torch_is_built_for_the_cpu() -> None:
    before = "nvidia-cublas==13.1\nold==1\ntorch==2.13.0\ntriton==3.8.0\n"
    assert lock_text("torch==2.14.1+cpu\nSix==1\nsetuptools==70\n", before).splitlines() == [
        HEAD,
        "nvidia-cublas==13.1",
        "Six==1",
        "torch==2.14.1",
        "triton==3.8.0",
    ]
    assert lock_text("torch==2.14.1\nSix==1\n", before).splitlines() == [HEAD, "Six==1", "torch==2.14.1"]
