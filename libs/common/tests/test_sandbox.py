"""Children bear what untrusted bytes do: a call that eats memory, runs for ever or kills its child fails alone."""

import builtins
import importlib
import io
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from vesta_common.errors import Internal, InvalidArgument, VestaError
from vesta_common.images import ImageHeader, inspect, model_pixels, normalise
from vesta_common.sandbox import Sandbox, _Unpickler

GIB = 1024**3


HOSTILE = """
import os
import signal

def obey(path):
    with open(path) as file:
        order = file.read()
    return os.kill(os.getpid(), signal.SIGKILL) if order == "die" else order

def die_at_seven(number):
    return os._exit(1) if number == 7 else number

def write(path):
    with open(path, "w") as file:
        file.write("something")
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A module that children can import too."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "hostile_functions.py").write_text(HOSTILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("hostile_functions")


@pytest.fixture(scope="module")
def sandbox(hostile: Any) -> Iterator[Sandbox]:
    sandbox = Sandbox(processes=2, memory_bytes_max=GIB, cpu_seconds_max=2)
    yield sandbox
    sandbox.close()


def a_jpeg(width: int = 320, height: int = 200) -> bytes:
    target = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(target, "JPEG")
    return target.getvalue()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "vesta_common.sandbox_child" in " ".join(child.cmdline())]


def test_answers_are_the_functions_own(sandbox: Sandbox) -> None:
    jpeg = a_jpeg()
    assert sandbox.run(inspect, jpeg) == ImageHeader("JPEG", 320, 200, 1)
    assert sandbox.run(normalise, jpeg) == normalise(jpeg)
    assert np.array_equal(sandbox.run(model_pixels, jpeg), model_pixels(jpeg))


def test_errors_come_back_as_they_were(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidArgument) as refused:
        sandbox.run(normalise, b"")
    assert refused.value.reason == "IMAGE_EMPTY"
    with pytest.raises(Internal) as failed:
        sandbox.run(len, 5)
    assert failed.value.reason == "SANDBOX_FAILED"


COSTLY: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "memory": (bytearray, 2 * GIB),
    "processor time": (sum, range(10**12)),
    "waiting": (time.sleep, 60),
    "death": (os._exit, 1),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_what_costs_too_much_fails_alone_and_the_pool_heals(sandbox: Sandbox, kind: str) -> None:
    function, argument = COSTLY[kind]
    with pytest.raises(InvalidArgument) as refused:
        sandbox.run(function, argument, timeout=timedelta(seconds=1 if kind == "waiting" else 30))
    assert refused.value.reason == "IMAGE_TOO_COSTLY"
    for _ in range(4):
        assert sandbox.run(inspect, a_jpeg()).width_px == 320


def test_of_many_calls_only_the_one_that_kills_its_child_fails(sandbox: Sandbox, hostile: Any) -> None:
    answers = sandbox.map(hostile.die_at_seven, [*range(20)])
    assert [answer for number, answer in enumerate(answers) if number != 7] == [n for n in range(20) if n != 7]
    assert isinstance(answers[7], InvalidArgument)
    assert answers[7].reason == "IMAGE_TOO_COSTLY"


def test_a_call_whose_child_was_killed_from_outside_is_tried_again(
    sandbox: Sandbox, hostile: Any, tmp_path: Path
) -> None:
    orders = tmp_path / "orders"
    os.mkfifo(orders)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(sandbox.run, hostile.obey, str(orders))
        with orders.open("w") as first:  # opens once a child reads
            orders.unlink()
            os.mkfifo(orders)  # for the next child
            first.write("die")
        orders.write_text("live")
        assert call.result() == "live"


def test_a_call_whose_child_is_killed_again_blames_no_picture(sandbox: Sandbox) -> None:
    with pytest.raises(Internal) as failed:
        sandbox.run(signal.raise_signal, signal.SIGKILL.value)
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


def test_a_bomb_within_the_header_limits_stays_within_memory() -> None:
    """36 megapixels of four channels, some hundred kilobytes as a file."""
    target = io.BytesIO()
    Image.new("RGBA", (6000, 6000)).save(target, "PNG")
    sandbox = Sandbox(processes=1, memory_bytes_max=GIB // 4, cpu_seconds_max=20)
    try:
        with pytest.raises(InvalidArgument) as refused:
            sandbox.run(normalise, target.getvalue())
        assert refused.value.reason == "IMAGE_TOO_COSTLY"
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


def test_children_know_no_secrets_and_write_no_files(
    hostile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VESTA_SECRET", "secret")
    fresh = Sandbox(processes=1)
    try:
        assert fresh.run(os.getenv, "VESTA_SECRET") is None
        target = tmp_path / "file"
        target.touch()
        with pytest.raises(Internal):
            fresh.run(hostile.write, str(target))
        assert target.read_bytes() == b""
    finally:
        fresh.close()


class RunsSomething:
    def __reduce__(self) -> tuple[Any, ...]:
        return (builtins.eval, ("1 / 0",))


class ReachesIn:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("true",))


@pytest.mark.parametrize("answer", [RunsSomething(), ReachesIn(), os.system, Sandbox])
def test_a_child_that_was_taken_over_cannot_make_its_parent_run_anything(answer: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="may not answer"):
        _Unpickler(io.BytesIO(pickle.dumps(answer))).load()


def test_children_end_with_the_sandbox() -> None:
    before = {child.pid for child in children()}
    sandbox = Sandbox(processes=3)
    started = [child for child in children() if child.pid not in before]
    assert len(started) == 3
    sandbox.close()
    assert not any(child.is_running() for child in started)


def test_closing_waits_for_no_call(hostile: Any, tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    os.mkfifo(orders)
    closing = Sandbox(processes=1)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(closing.run, hostile.obey, str(orders)) for _ in range(2)]
        with orders.open("w"):  # opens once a child reads, which then waits
            closing.close()
            for call in calls:
                with pytest.raises(Internal) as refused:
                    call.result()
                assert refused.value.reason == "SANDBOX_CLOSED"


def test_a_closed_sandbox_says_so() -> None:
    closed = Sandbox(1)
    closed.close()
    with pytest.raises(VestaError) as refused:
        closed.run(len, b"abc")
    assert refused.value.reason == "SANDBOX_CLOSED"
