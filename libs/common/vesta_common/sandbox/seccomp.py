"""The seccomp filter of sandbox children: an allow-list of system calls. All others fail with EPERM.

See seccomp(2). The filter is a classic BPF program over the number of the system call, the architecture and the arguments.
"""

import errno
import mmap
import os
import resource
import struct
from collections.abc import Iterator
from typing import NamedTuple

from vesta_common.sandbox.kernel import MACHINE, filter_system_calls

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _KILL_PROCESS, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16


class Numbers(NamedTuple):
    """The number of a system call on each architecture; None if the architecture does not have it."""

    x86_64: int | None
    aarch64: int | None


class Condition(NamedTuple):
    """The required value of the lower 32 bits of an argument, after masking."""

    argument: int
    value: int
    mask: int = 0xFFFFFFFF


COMPUTING = {
    "read": Numbers(0, 63),
    "write": Numbers(1, 64),
    "readv": Numbers(19, 65),
    "futex": Numbers(202, 98),
    "munmap": Numbers(11, 215),
    "brk": Numbers(12, 214),
    "mremap": Numbers(25, 216),
    "madvise": Numbers(28, 233),
    "clock_gettime": Numbers(228, 113),
    "clock_getres": Numbers(229, 114),
    "gettimeofday": Numbers(96, 169),
    "time": Numbers(201, None),
    "times": Numbers(100, 153),
    "getrusage": Numbers(98, 165),
    "nanosleep": Numbers(35, 101),
    "clock_nanosleep": Numbers(230, 115),
    "restart_syscall": Numbers(219, 128),
    "sched_yield": Numbers(24, 124),
    "sched_getaffinity": Numbers(204, 123),
    "getpid": Numbers(39, 172),
    "gettid": Numbers(186, 178),
    "getrandom": Numbers(318, 278),
    "rt_sigaction": Numbers(13, 134),
    "rt_sigprocmask": Numbers(14, 135),
    "rt_sigreturn": Numbers(15, 139),
    "sigaltstack": Numbers(131, 132),
    "close": Numbers(3, 57),
    "exit": Numbers(60, 93),
    "exit_group": Numbers(231, 94),
}
"""System calls for computing and for communicating over a file descriptor."""

FILES = {
    "openat": Numbers(257, 56),
    "fstat": Numbers(5, 80),
    "newfstatat": Numbers(262, 79),
    "statx": Numbers(332, 291),
    "stat": Numbers(4, None),
    "lstat": Numbers(6, None),
    "lseek": Numbers(8, 62),
    "pread64": Numbers(17, 67),
    "getdents64": Numbers(217, 61),
    "readlink": Numbers(89, None),
    "readlinkat": Numbers(267, 78),
    "access": Numbers(21, None),
    "faccessat": Numbers(269, 48),
    "faccessat2": Numbers(439, 439),
    "getcwd": Numbers(79, 17),
    "fcntl": Numbers(72, 25),
    "ftruncate": Numbers(77, 46),
    "sendfile": Numbers(40, 71),
    "copy_file_range": Numbers(326, 285),
    "mkdir": Numbers(83, None),
    "mkdirat": Numbers(258, 34),
    "rmdir": Numbers(84, None),
    "unlink": Numbers(87, None),
    "unlinkat": Numbers(263, 35),
    "rename": Numbers(82, None),
    "renameat": Numbers(264, 38),
    "renameat2": Numbers(316, 276),
    "chmod": Numbers(90, None),
    "fchmod": Numbers(91, 52),
    "fchmodat": Numbers(268, 53),
    "utimensat": Numbers(280, 88),
    "listxattr": Numbers(194, 11),
    "llistxattr": Numbers(195, 12),
    "umask": Numbers(95, 166),
}
"""Additional system calls for file access. Landlock and the root directory determine which files are accessible."""

_ON_ITSELF = {"tgkill": Numbers(234, 131), "prlimit64": Numbers(302, 261)}
_WITHOUT_EXECUTION = {"mmap": Numbers(9, 222), "mprotect": Numbers(10, 226)}


def allow_only(*, files: bool) -> None:
    """Permanently denies this process all system calls outside the allow-list, such as those for sockets, processes, tracing and mounts.

    Loaded code stays executable, but no new memory can become executable. The process may signal itself and limit its own CPU time.

    Raises:
        OSError: the kernel does not support filters, or the architecture is not in the tables.
    """
    if MACHINE not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system call table for {MACHINE}")
    filter_system_calls(b"".join(_program(COMPUTING | (FILES if files else {}))))


def _program(plain: dict[str, Numbers]) -> Iterator[bytes]:
    yield _instruction(_LOAD, _ARCHITECTURE_OFFSET)
    yield _instruction(_JUMP_IF_EQUAL, _ARCHITECTURES[MACHINE], if_true=1)
    yield _instruction(_RETURN, _KILL_PROCESS)
    yield _instruction(_LOAD, _NUMBER_OFFSET)
    for numbers in plain.values():
        yield from _allowed(numbers)
    for numbers in _WITHOUT_EXECUTION.values():
        yield from _allowed(numbers, Condition(argument=2, value=0, mask=mmap.PROT_EXEC))
    yield from _allowed(_ON_ITSELF["tgkill"], Condition(argument=0, value=os.getpid()))
    yield from _allowed(
        _ON_ITSELF["prlimit64"], Condition(argument=0, value=0), Condition(argument=1, value=resource.RLIMIT_CPU)
    )
    yield _instruction(_RETURN, _FAIL)


def _allowed(numbers: Numbers, *conditions: Condition) -> Iterator[bytes]:
    """Generates the instructions for one system call: allow it if all conditions hold, otherwise fail it. Other calls continue below."""
    number = getattr(numbers, MACHINE)
    if number is None:
        return
    body = [_instruction(_RETURN, _ALLOW)]
    for condition in reversed(conditions):
        body = [
            _instruction(_LOAD, _ARGUMENTS_OFFSET + 8 * condition.argument),  # both architectures are little-endian
            _instruction(_AND, condition.mask),
            _instruction(_JUMP_IF_EQUAL, condition.value, if_true=1),
            _instruction(_RETURN, _FAIL),
            *body,
        ]
    yield _instruction(_JUMP_IF_EQUAL, number, if_false=len(body))
    yield from body


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
