"""Children bear what untrusted bytes do: a call that eats memory, runs for ever or kills its child fails alone."""

import builtins
import io
import os
import pickle
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import hostile_functions
import numpy as np
import psutil
import pytest
from PIL import Image, ImageCms
from vesta_common.errors import Internal, InvalidArgument, VestaError
from vesta_common.media.images import ImageHeader, inspect, normalise
from vesta_common.media.model_pictures import model_pixels
from vesta_common.sandbox import Limits, Sandbox, run_in_folder, shared_memory
from vesta_common.sandbox.process import Unpickler, unpickle

GIB = 1024**3
USUAL = Limits()
MODULES = ("vesta_common.media.images", "hostile_functions")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(2, Limits(memory_bytes_max=GIB, cpu_seconds_max=2), MODULES)
    yield sandbox
    sandbox.close()


def a_jpeg(width: int = 320, height: int = 200) -> bytes:
    target = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(target, "JPEG")
    return target.getvalue()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "vesta_common.sandbox.child" in " ".join(command(child))]


def command(process: psutil.Process) -> list[str]:
    """Returns the command line. Of a process that has just been started it is empty for a moment."""
    deadline = time.monotonic() + 10
    while not (words := process.cmdline()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return words


def await_working(child: psutil.Process) -> None:
    """Waits until a child computes something."""
    before = child.cpu_times().user
    deadline = time.monotonic() + 60
    while child.cpu_times().user < before + 0.1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_answers_are_the_functions_own(sandbox: Sandbox) -> None:
    jpeg = a_jpeg()
    assert sandbox.run(inspect, jpeg) == ImageHeader("JPEG", 320, 200, 1)
    assert sandbox.run(normalise, jpeg) == normalise(jpeg)
    assert np.array_equal(sandbox.run(model_pixels, jpeg), model_pixels(jpeg))


PICTURES = [
    *(
        (image_format, mode, {})
        for image_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
        for mode in ("L", "RGB")
    ),
    *((image_format, "1", {}) for image_format in ("PNG", "BMP", "TIFF", "GIF")),
    *((image_format, "P", {}) for image_format in ("PNG", "BMP", "TIFF", "GIF")),
    *((image_format, "RGBA", {}) for image_format in ("PNG", "WEBP", "BMP", "TIFF")),
    *((image_format, "I;16", {}) for image_format in ("PNG", "TIFF")),
    *((image_format, "CMYK", {}) for image_format in ("JPEG", "TIFF")),
    *(("TIFF", "RGB", {"compression": packed}) for packed in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits")),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "RGB", {"quality": 30, "subsampling": 2, "optimize": True}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("TIFF", "1", {"compression": "group4"}),
]


@pytest.mark.parametrize(("side_px", "orientation"), [(8, 1), (300, 1), (300, 6)])
@pytest.mark.parametrize(("image_format", "mode", "options"), PICTURES)
def test_every_kind_of_picture_reads_as_outside_the_sandbox(
    sandbox: Sandbox, image_format: str, mode: str, options: dict[str, Any], side_px: int, orientation: int
) -> None:
    noise = np.random.default_rng(1).integers(0, 65536, (side_px, side_px), dtype=np.uint16)
    picture = Image.fromarray(noise if mode == "I;16" else (noise >> 8).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    if image_format in {"JPEG", "PNG", "WEBP"}:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB" if orientation == 1 else "sRGB"))
        options = {**options, "exif": exif, "icc_profile": profile.tobytes()}
    target = io.BytesIO()
    (picture if mode == "I;16" else picture.convert("RGB").convert(mode)).save(target, image_format, **options)

    assert sandbox.run(normalise, target.getvalue()) == normalise(target.getvalue())
    assert np.array_equal(sandbox.run(model_pixels, target.getvalue()), model_pixels(target.getvalue()))


def test_errors_come_back_as_they_were(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidArgument) as refused:
        sandbox.run(normalise, b"")
    assert refused.value.reason == "IMAGE_EMPTY"
    with pytest.raises(Internal) as failed:
        sandbox.run(len, 5)
    assert failed.value.reason == "SANDBOX_FAILED"


COSTLY: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "one piece of memory": (bytearray, 2 * GIB),
    "memory": (hostile_functions.take_memory, None),
    "processor time": (hostile_functions.take_time, None),
    "waiting": (hostile_functions.sleep, 60),
    "death": (os._exit, 1),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_what_costs_too_much_fails_alone_and_the_pool_heals(sandbox: Sandbox, kind: str) -> None:
    function, argument = COSTLY[kind]
    with pytest.raises(InvalidArgument) as refused:
        sandbox.run(function, argument, timeout=timedelta(seconds=1 if kind == "waiting" else 30))
    assert refused.value.reason == "IMAGE_TOO_EXPENSIVE"
    for _ in range(4):
        assert sandbox.run(inspect, a_jpeg()).width_px == 320


def test_of_many_calls_only_the_one_that_kills_its_child_fails(sandbox: Sandbox) -> None:
    answers = sandbox.map(hostile_functions.die_at_seven, [*range(20)])
    assert [answer for number, answer in enumerate(answers) if number != 7] == [n for n in range(20) if n != 7]
    assert isinstance(answers[7], InvalidArgument)
    assert answers[7].reason == "IMAGE_TOO_EXPENSIVE"


def test_a_call_whose_child_was_killed_from_outside_is_tried_again() -> None:
    before = {child.pid for child in children()}
    alone = Sandbox(1, modules=MODULES)
    assert alone.run(len, b"ready") == 5
    (child,) = (child for child in children() if child.pid not in before)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(alone.run, hostile_functions.spin, 1)
        await_working(child)
        child.kill()
        assert call.result() == "done"
    alone.close()


def test_a_call_whose_child_is_killed_again_blames_no_picture(sandbox: Sandbox) -> None:
    with pytest.raises(Internal) as failed:
        sandbox.run(hostile_functions.die_by_kill, None)
    assert failed.value.reason == "SANDBOX_FAILED"


def test_answers_are_handed_on_one_by_one(sandbox: Sandbox) -> None:
    """Eight large answers of one chunk take no more memory than one does: as it came, and as it was read."""
    size_bytes = 64 << 20
    before = psutil.Process().memory_info().rss
    memory = sandbox.map_on(
        bytes, [size_bytes] * 8, lambda index, answer: (index, len(answer), psutil.Process().memory_info().rss)
    )
    assert [(index, answer_bytes) for index, answer_bytes, _ in memory] == [(n, size_bytes) for n in range(8)]
    assert max(rss for *_, rss in memory) - before < 4 * size_bytes


def test_mixed_files_get_each_their_own_answer_in_order(sandbox: Sandbox) -> None:
    files = [a_jpeg(100 + number, 100) if number % 3 else b"no image" for number in range(50)]
    answers = sandbox.map(normalise, files)
    for number, answer in enumerate(answers):
        if number % 3:
            assert not isinstance(answer, VestaError)
            assert answer.width_px == 100 + number
        else:
            assert isinstance(answer, InvalidArgument)


def test_functions_used_in_turn_are_not_confused(sandbox: Sandbox) -> None:
    functions = [partial(divmod, 7), partial(divmod, 9), len]
    for _ in range(3):
        assert [
            sandbox.run(function, argument) for function, argument in zip(functions, (2, 4, b"abc"), strict=True)
        ] == [
            (3, 1),
            (2, 1),
            3,
        ]


def test_a_bomb_within_the_header_limits_stays_within_memory() -> None:
    """36 megapixels of four channels, some hundred kilobytes as a file."""
    target = io.BytesIO()
    Image.new("RGBA", (6000, 6000)).save(target, "PNG")
    sandbox = Sandbox(1, Limits(memory_bytes_max=GIB // 4))
    try:
        with pytest.raises(InvalidArgument) as refused:
            sandbox.run(normalise, target.getvalue())
        assert refused.value.reason == "IMAGE_TOO_EXPENSIVE"
        assert sandbox.run(inspect, target.getvalue()).width_px == 6000
        assert children()[-1].memory_info().rss < GIB // 4
    finally:
        sandbox.close()


def test_many_threads_share_the_children_and_one_ones_bomb_hurts_no_other(sandbox: Sandbox) -> None:
    def call(number: int) -> str:
        if number % 10 == 0:
            with pytest.raises(InvalidArgument):
                sandbox.run(os._exit, 1)
            return "refused"
        return sandbox.run(normalise, a_jpeg(100 + number)).data.hex()

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(call, range(40)))
    assert answers.count("refused") == 4
    assert len(set(answers)) == 37


class RunsSomething:
    def __reduce__(self) -> tuple[Any, ...]:
        return (builtins.eval, ("1 / 0",))


class ReachesIn:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("true",))


@pytest.mark.parametrize("answer", [RunsSomething(), ReachesIn(), os.system, Sandbox])
def test_a_child_that_was_taken_over_cannot_make_its_parent_run_anything(answer: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="may not return"):
        Unpickler(io.BytesIO(pickle.dumps(answer))).load()


def a_frame(*sizes: int) -> bytes:
    """A result that claims to have buffers of these sizes in the shared memory."""
    return struct.pack(f">I{len(sizes)}Q", len(sizes), *sizes) + pickle.dumps(None)


@pytest.mark.parametrize("frame", [b"", b"\0\0", struct.pack(">I", 7), a_frame(101), a_frame(64, 64), a_frame(1 << 63)])
def test_a_result_cannot_refer_to_memory_outside_its_own(frame: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        shared_memory.load(frame, memoryview(bytearray(100)), unpickle, bytes)


def test_the_shared_memory_cannot_be_resized() -> None:
    descriptor = shared_memory.create()
    try:
        for size_bytes in (0, 2 * shared_memory.SIZE_BYTES):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, size_bytes)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("size_bytes", [0, 1, 100, 5000, 3_000_000, shared_memory.SIZE_BYTES, 20_000_000])
def test_a_file_of_any_size_arrives_and_returns_unchanged(sandbox: Sandbox, size_bytes: int) -> None:
    content = np.random.default_rng(size_bytes).bytes(size_bytes)
    assert sandbox.run(bytes, content) == content
    pixels = sandbox.map(hostile_functions.as_array, [content] * 3)
    assert all(isinstance(array, np.ndarray) and array.tobytes() == content for array in pixels)


def test_this_process_copies_neither_the_file_nor_more_than_once_its_pixels(sandbox: Sandbox) -> None:
    """The file is 4 MB, so that a copy of it is more than all else."""
    noise = np.random.default_rng(1).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, "JPEG", quality=97)
    jpeg = target.getvalue()
    sandbox.run(model_pixels, jpeg)
    tracemalloc.start()
    try:
        pixels = sandbox.run(model_pixels, jpeg)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(jpeg) > 10 * pixels.nbytes
    assert peak_bytes < 2 * pixels.nbytes


def test_the_memory_of_a_large_file_is_returned_after_its_call() -> None:
    descriptor = shared_memory.create()
    memory = shared_memory.attach(descriptor)
    memory[:] = bytes(len(memory))
    shared_memory.release_pages(memory, len(memory))
    assert os.fstat(descriptor).st_blocks * 512 == shared_memory.RESIDENT_BYTES_MAX
    os.close(descriptor)


def test_children_end_with_the_sandbox() -> None:
    before = {child.pid for child in children()}
    sandbox = Sandbox(processes=3)
    started = [child for child in children() if child.pid not in before]
    assert len(started) == 3
    sandbox.close()
    assert not any(child.is_running() for child in started)


def test_closing_waits_for_no_call() -> None:
    before = {child.pid for child in children()}
    closing = Sandbox(1, modules=MODULES)
    assert closing.run(len, b"ready") == 5
    (child,) = (child for child in children() if child.pid not in before)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(closing.run, hostile_functions.spin, 3600) for _ in range(2)]
        await_working(child)
        closing.close()
        for call in calls:
            with pytest.raises(Internal) as refused:
                call.result()
            assert refused.value.reason == "SANDBOX_CLOSED"


def test_a_sandbox_whose_children_cannot_start_blames_no_picture() -> None:
    broken = Sandbox(1, modules=("there_is_no_such_module",))
    with pytest.raises(Internal) as failed:
        broken.run(len, b"abc")
    assert failed.value.reason == "SANDBOX_FAILED"
    broken.close()


def in_folder(function: str, folder: Path, argument: Any, limits: Limits = USUAL, seconds: float = 60) -> Any:
    return run_in_folder(f"hostile_functions:{function}", folder, argument, limits, timedelta(seconds=seconds))


def test_a_call_in_a_folder_reads_and_writes_there(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir(mode=0o700)
    (tmp_path / "deep" / "there.txt").write_text("before")
    (tmp_path / "deep" / "there.txt").chmod(0o600)
    answer = in_folder("use_folder", tmp_path, "text", Limits(file_bytes_max=1000))
    assert answer == ["deep/there.txt: before", "made/b.txt: text"]
    assert (tmp_path / "made" / "b.txt").read_text() == "text"


def test_a_call_in_a_folder_writes_no_larger_file_than_it_may(tmp_path: Path) -> None:
    assert in_folder("fill_folder", tmp_path, 1000, Limits(file_bytes_max=1000)) == "written"
    with pytest.raises(Internal) as failed:
        in_folder("fill_folder", tmp_path, 1001, Limits(file_bytes_max=1000))
    assert failed.value.reason == "SANDBOX_FAILED"


@pytest.mark.parametrize("function", ["take_memory_there", "take_time_there"])
def test_a_call_in_a_folder_that_costs_too_much_is_ended(tmp_path: Path, function: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        in_folder(function, tmp_path, None, Limits(memory_bytes_max=GIB, cpu_seconds_max=1))
    assert refused.value.reason == "IMAGE_TOO_EXPENSIVE"


def test_a_call_in_a_folder_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        in_folder("sleep_there", tmp_path, 60, seconds=0.3)
    assert refused.value.reason == "IMAGE_TOO_EXPENSIVE"


def test_a_call_in_a_folder_whose_child_is_killed_or_does_not_start_blames_no_archive(tmp_path: Path) -> None:
    for function in ("hostile_functions:die_by_kill_there", "there_is_no_such_module:function"):
        with pytest.raises(Internal) as failed:
            run_in_folder(function, tmp_path, None, Limits(), timedelta(seconds=60))
        assert failed.value.reason == "SANDBOX_FAILED"


def test_a_closed_sandbox_says_so() -> None:
    closed = Sandbox(1)
    closed.close()
    with pytest.raises(VestaError) as refused:
        closed.run(len, b"abc")
    assert refused.value.reason == "SANDBOX_CLOSED"
