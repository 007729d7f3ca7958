"""What code that took over a sandbox's child would try. Each answers only if it succeeded. Loaded by the child."""

import ctypes
import mmap
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH = 16


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _connected(family: int, address: Any) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as opened:
        opened.connect(address)
        return "connected"


def _sent(port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        return f"sent {opened.sendto(b'secret', ('127.0.0.1', port))} bytes"


def _memory_read(pid: int, address: int) -> bytes:
    """With process_vm_readv."""
    buffer = ctypes.create_string_buffer(16)
    ours = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 16)
    theirs = (ctypes.c_void_p * 2)(address, 16)
    _checked(_LIBC.process_vm_readv(pid, ours, 1, theirs, 1, 0))
    return buffer.raw


def _memory_file_read(pid: int, address: int) -> bytes:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(16)


def _thread_started() -> str:
    thread = threading.Thread(target=time.monotonic)
    thread.start()
    thread.join()
    return "started"


def _forked() -> str:
    if os.fork() == 0:
        os._exit(0)
    return "forked"


def _written(path: Path) -> str:
    path.write_text("hostile")
    return "written"


def _other_descriptors(channel_count: int) -> list[int]:
    """Those that can be written to beside the three standard ones and the socket to the parent."""
    found = []
    for descriptor in range(3, 1024):
        try:
            os.write(descriptor, b"")
        except OSError:
            continue
        found.append(descriptor)
    if len(found) <= channel_count:
        raise OSError("there are none")
    return found


def _inherited() -> list[str]:
    found = [f"{name}={value}" for name, value in os.environ.items() if name != "LC_CTYPE"]  # which Python sets itself
    if not found:
        raise OSError("the environment is empty")
    return found


def attempts(told: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """What is tried against a parent (`pid`, `address` of a secret in its memory), ports, sockets and files."""
    pid, address, writable = int(told["pid"]), int(told["address"]), Path(told["writable"])
    return {
        "own environment": _inherited,
        "own environment's file": lambda: Path("/proc/self/environ").read_bytes(),
        "parent's environment": lambda: Path(f"/proc/{pid}/environ").read_bytes(),
        "parent's memory": lambda: _memory_file_read(pid, address),
        "parent's memory by process_vm_readv": lambda: _memory_read(pid, address),
        "parent traced": lambda: _checked(_LIBC.ptrace(_PTRACE_ATTACH, pid, 0, 0)),
        "parent signalled": lambda: os.kill(pid, 0) or "signalled",
        "group signalled": lambda: os.kill(0, 0) or "signalled",
        "file read": lambda: Path("/etc/passwd").read_bytes(),
        "device read": lambda: Path("/dev/urandom").open("rb").read(1),
        "folder listed": lambda: [*Path("/usr").iterdir()],
        "file looked up": lambda: Path("/etc/passwd").stat().st_size,
        "file written": lambda: _written(writable / "hostile"),
        "file in memory": lambda: os.memfd_create("hostile"),
        "folder made": lambda: (writable / "folder").mkdir() or "made",
        "link made": lambda: (writable / "link").symlink_to("/etc/passwd") or "made",
        "other descriptors": lambda: _other_descriptors(1),
        "TCP": lambda: _connected(socket.AF_INET, ("127.0.0.1", int(told["tcp"]))),
        "UDP": lambda: _sent(int(told["udp"])),
        "Unix socket": lambda: _connected(socket.AF_UNIX, told["unix"]),
        "abstract socket": lambda: _connected(socket.AF_UNIX, "\0" + told["abstract"]),
        "socket pair": lambda: socket.socketpair() and "made",
        "pipe": os.pipe,
        "fork": _forked,
        "thread": _thread_started,
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "program": lambda: subprocess.run(["/bin/true"], check=True) and "ran",
        "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC) and "made",
        "more memory allowed": lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)) or "allowed",
        "user changed": lambda: os.setuid(0) or "changed",
        "namespace made": lambda: _checked(_LIBC.unshare(0x10000000)),
        "mount": lambda: _checked(_LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
        "clock set": lambda: time.clock_settime(time.CLOCK_REALTIME, 0) or "set",
        "first process signalled": lambda: os.kill(1, 0) or "signalled",
    }


def attempt(told: dict[str, Any]) -> Any:
    """One of them."""
    return f"{attempts(told)[told['attempt']]()!r}"


def attempt_all(folder: Path, told: dict[str, Any]) -> dict[str, str]:
    """Each of them, where a folder may be used: what it answered, or `failed: ` and the error."""
    found = {}
    for name, act in attempts(told).items():
        try:
            found[name] = repr(act())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is printed
            found[name] = f"failed: {error!r}"
    return found


def use_folder(folder: Path, text: str) -> list[str]:
    """What honest code does in its folder: writes, reads, lists, walks, moves and removes."""
    (folder / "made").mkdir()
    (folder / "made" / "a.txt").write_text(text)
    (folder / "made" / "a.txt").rename(folder / "made" / "b.txt")
    (folder / "made" / "c.txt").write_text("gone")
    (folder / "made" / "c.txt").unlink()
    return sorted(f"{path.relative_to(folder)}: {path.read_text()}" for path in folder.rglob("*") if path.is_file())


def fill_folder(folder: Path, size_bytes: int) -> str:
    """Writes one large file."""
    (folder / "large").write_bytes(bytes(size_bytes))
    return "written"


def take_memory(_: Any) -> int:
    """All that there is."""
    taken = []
    while True:
        taken.append(bytearray(1 << 24))


def take_time(_: Any) -> int:
    """All that there is."""
    while True:
        pass


def spin(seconds: float) -> str:
    """Computes for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


def sleep(seconds: float) -> None:
    """Waits."""
    time.sleep(seconds)


def as_array(content: bytes | memoryview) -> Any:
    """Honest: the octets as an array."""
    return np.frombuffer(content, np.uint8)


def die_at_seven(number: int) -> int:
    """Ends the process at one number."""
    return os._exit(1) if number == 7 else number


def die_by_kill(_: Any) -> None:
    """As if the machine were short of memory."""
    signal.raise_signal(signal.SIGKILL)


def take_memory_there(_: Path, argument: Any) -> int:
    """As `take_memory`."""
    return take_memory(argument)


def take_time_there(_: Path, argument: Any) -> int:
    """As `take_time`."""
    return take_time(argument)


def sleep_there(_: Path, seconds: float) -> None:
    """As `sleep`."""
    sleep(seconds)


def die_by_kill_there(_: Path, argument: Any) -> None:
    """As `die_by_kill`."""
    die_by_kill(argument)
