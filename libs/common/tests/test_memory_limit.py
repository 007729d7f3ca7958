"""The limits of control groups are found, and children share what they leave."""

import io
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image
from vesta_common.errors import InvalidArgument
from vesta_common.media.images import normalise
from vesta_common.memory_limit import memory_limit_bytes
from vesta_common.sandbox import Limits, Sandbox
from vesta_common.sandbox.shares import LEAST_BYTES, MIB, RESERVED_BYTES, USEFUL_BYTES, shared

GIB = 1024 * MIB
NONE_OF_V1 = "9223372036854771712"


@pytest.mark.parametrize(
    ("own", "files", "room"),
    [
        ("0::/", {"memory.max": str(GIB)}, GIB),  # a container of version 2, in a namespace of its own
        ("0::/", {"memory.max": "max"}, None),
        ("0::/", {}, None),  # the root of a machine
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": str(GIB)}, GIB),
        ("0::/a/b", {"a/b/memory.max": str(GIB), "a/memory.max": str(2 * GIB)}, GIB),
        ("4:memory:/a\n0::/", {"memory/a/memory.limit_in_bytes": str(GIB)}, GIB),  # version 1, and hybrid
        ("4:cpu,memory:/a", {"memory/a/memory.limit_in_bytes": NONE_OF_V1}, None),
        ("4:memory:/host/path", {"memory/memory.limit_in_bytes": str(GIB)}, GIB),  # a container of version 1
        ("3:cpu:/a", {"memory.max": str(GIB)}, None),
    ],
)
def test_the_smallest_limit_of_our_groups_is_found(
    own: str, files: dict[str, str], room: int | None, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text(f"{own}\n")
    for name, content in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    assert memory_limit_bytes(tmp_path / "groups", tmp_path / "own") == room


def test_there_is_no_limit_where_there_are_no_control_groups(tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path, tmp_path / "own") is None


@pytest.mark.parametrize("asked", [1, 2, 8])
@pytest.mark.parametrize("room_mib", [512, 768, 1024, 2048, 65536])
def test_children_take_no_more_than_the_service_leaves(asked: int, room_mib: int) -> None:
    processes, limits = shared(room_mib * MIB, asked, Limits())
    assert 1 <= processes <= asked
    assert limits.memory_bytes_max >= LEAST_BYTES
    assert (
        processes * limits.memory_bytes_max + RESERVED_BYTES <= room_mib * MIB
        or room_mib * MIB < RESERVED_BYTES + LEAST_BYTES
    )
    assert limits.memory_bytes_max <= Limits().memory_bytes_max


def test_without_a_limit_children_are_as_many_and_as_large_as_asked_for() -> None:
    assert shared(None, 8, Limits()) == (8, Limits())


def assert_too_expensive(sandbox: Sandbox, file: bytes) -> None:
    with pytest.raises(InvalidArgument) as refused:
        sandbox.run(normalise, file)
    assert refused.value.reason == "IMAGE_TOO_EXPENSIVE"


def test_an_image_that_needs_too_much_leaves_nothing_behind() -> None:
    """The child that gave up goes on, and has all of its memory again for the next file."""
    bomb, large = io.BytesIO(), io.BytesIO()
    Image.new("RGBA", (7900, 7900)).save(bomb, "PNG")
    Image.effect_noise((2400, 2400), 90).convert("RGB").save(large, "PNG", compress_level=0)
    with closing(Sandbox(1, memory_bytes=RESERVED_BYTES + USEFUL_BYTES)) as sandbox:
        assert_too_expensive(sandbox, bomb.getvalue())
        assert sandbox.run(normalise, large.getvalue()).width_px == 2400


def test_a_webp_without_memory_for_it_is_too_costly_and_not_broken() -> None:
    file = io.BytesIO()
    Image.new("RGB", (7900, 7900)).save(file, "WEBP", quality=1, method=0)
    with closing(Sandbox(1, memory_bytes=RESERVED_BYTES + USEFUL_BYTES)) as sandbox:
        assert_too_expensive(sandbox, file.getvalue())


def test_a_bomb_dies_within_the_memory_of_the_pod_and_the_next_image_is_decoded() -> None:
    bomb, picture = io.BytesIO(), io.BytesIO()
    Image.new("RGBA", (6000, 6000)).save(bomb, "PNG")
    Image.new("RGB", (600, 600)).save(picture, "PNG")
    with closing(Sandbox(2, memory_bytes=RESERVED_BYTES + LEAST_BYTES)) as sandbox:
        assert_too_expensive(sandbox, bomb.getvalue())
        assert sandbox.run(normalise, picture.getvalue()).width_px == 600
