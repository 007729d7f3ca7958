"""Hostile code in a sandbox's child reaches nothing: as root and as another user, on a bare kernel and in a container."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534
SECRET = "hush-4711"
HERE = Path(__file__).parent
USERS = [0, NOBODY] if os.geteuid() == 0 else [os.geteuid()]
BARE: tuple[str, ...] = ()
CONTAINER = ("unshare", "chroot")
OLD_KERNEL = ("unshare", "chroot", "landlock_create_ruleset")
NO_SECCOMP = ("seccomp",)
NOTHING = (*OLD_KERNEL, "seccomp")
HOW_MEMORY_IS_REACHED = {
    "parent's environment",
    "parent's memory",
    "parent's memory by process_vm_readv",
    "parent traced",
}


@dataclass
class Target:
    """What is there to be reached."""

    tcp: int
    udp: int
    unix: str
    abstract: str
    writable: str


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        path, abstract = f"{folder}/socket", f"vesta-{os.getpid()}"
        tcp, unix, hidden = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        udp = socket.socket(type=socket.SOCK_DGRAM)
        with tcp, unix, hidden, udp:
            for opened, address in ((tcp, ("127.0.0.1", 0)), (unix, path), (hidden, f"\0{abstract}")):
                opened.bind(address)
                opened.listen(64)
            udp.bind(("127.0.0.1", 0))
            Path(path).chmod(0o777)
            yield Target(tcp.getsockname()[1], udp.getsockname()[1], path, abstract, folder)


Attack = Callable[..., tuple[dict[str, str], str]]


@pytest.fixture(scope="module")
def attack(target: Target) -> Attack:
    """Outcomes by attempt, and what the process printed besides."""

    def run(
        user: int, denied: tuple[str, ...], *, folder: bool = False, only_log: bool = False
    ) -> tuple[dict[str, str], str]:
        told: dict[str, Any] = {"user": 0 if user == os.geteuid() else user, "denied": denied}
        told |= {"folder": folder, "only_log": only_log}
        ended = subprocess.run(
            [sys.executable, str(HERE / "hostile_run.py"), json.dumps({**told, **vars(target)})],
            env={"VESTA_TEST_S3_SECRET_KEY": SECRET, "HOME": "/nonexistent"},
            cwd="/",
            check=False,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert ended.returncode == 0, ended.stderr
        printed, _, outcome = ended.stdout.partition("OUTCOME ")
        return json.loads(outcome or "{}"), printed + ended.stderr

    return run


def succeeded(outcomes: dict[str, str]) -> dict[str, str]:
    return {name: told for name, told in outcomes.items() if not told.startswith("failed: ")}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("denied", [BARE, CONTAINER, OLD_KERNEL], ids=["bare", "container", "old kernel"])
def test_hostile_code_reaches_nothing(attack: Attack, user: int, denied: tuple[str, ...]) -> None:
    outcomes, printed = attack(user, denied)
    assert succeeded(outcomes) == {}
    assert all(told.startswith("failed: SANDBOX_FAILED the sandboxed function failed:") for told in outcomes.values())
    assert len(outcomes) > 30
    assert "secret" not in printed
    assert SECRET not in printed + str(outcomes)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("denied", [BARE, CONTAINER], ids=["bare", "container"])
def test_hostile_code_with_a_folder_reaches_nothing_outside_it(
    attack: Attack, user: int, denied: tuple[str, ...]
) -> None:
    outcomes, printed = attack(user, denied, folder=True)
    allowed = {"file looked up"} if denied else set()  # Landlock hides contents, not that a file is there
    assert succeeded(outcomes).keys() <= allowed
    assert SECRET not in printed + str(outcomes)


@pytest.mark.parametrize("user", USERS)
def test_without_seccomp_the_other_layers_keep_files_network_and_parent_shut(attack: Attack, user: int) -> None:
    outcomes, _ = attack(user, NO_SECCOMP)
    shut = {*HOW_MEMORY_IS_REACHED, "parent signalled", "file read", "file written", "folder listed", "TCP", "UDP"}
    assert not shut & succeeded(outcomes).keys()


@pytest.mark.parametrize("user", USERS)
def test_without_any_layer_in_the_child_its_parents_memory_is_shut_all_the_same(attack: Attack, user: int) -> None:
    outcomes, _ = attack(user, NOTHING)
    assert not HOW_MEMORY_IS_REACHED & succeeded(outcomes).keys()


@pytest.mark.parametrize(
    ("denied", "layers"),
    [
        (BARE, []),
        (CONTAINER, ["namespaces"]),
        (OLD_KERNEL, ["landlock", "namespaces"]),
        (NOTHING, ["landlock", "namespaces", "seccomp"]),
    ],
    ids=["bare", "container", "old kernel", "nothing"],
)
@pytest.mark.parametrize("only_log", [False, True], ids=["at the start of a sandbox", "without one"])
def test_what_the_kernel_does_not_grant_is_logged_once_by_name(
    attack: Attack, denied: tuple[str, ...], layers: list[str], only_log: bool
) -> None:
    _, printed = attack(USERS[-1], denied, only_log=only_log)
    warnings = [line for line in printed.splitlines() if "sandbox_protection_missing" in line]
    assert len(warnings) == bool(layers)
    for layer in layers:
        assert f"'{layer}'" in warnings[0]
