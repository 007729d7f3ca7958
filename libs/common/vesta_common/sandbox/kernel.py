"""Linux system calls that Python 3.11 does not provide. All functions raise OSError."""

import ctypes
import mmap
import os
import platform

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_MAP_FAILED = ctypes.c_void_p(-1).value
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000

MACHINE = platform.machine()


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def forbid_dumps() -> None:
    """Hides this process's memory and environment from processes of the same user: no ptrace, no /proc/PID/mem or environ.

    The files in /proc/self then belong to root, and core dumps are disabled. An exec resets it.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Prevents a later exec from gaining privileges through set-user-id bits. Unprivileged seccomp filters require it."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def filter_system_calls(program: bytes) -> None:
    """Installs a seccomp filter for this process.

    Args:
        program: an array of `struct sock_filter`, eight bytes each.
    """
    described = _Program(len(program) // 8, program)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(described))


def unshare(flags: int) -> None:
    """Moves this process into new namespaces."""
    _checked(_LIBC.unshare(ctypes.c_int(flags)))


def map_shared(descriptor: int, size_bytes: int) -> memoryview:
    """Maps a file into this process, readable and writable, until the process ends."""
    _LIBC.mmap.restype = ctypes.c_void_p
    address = _LIBC.mmap(
        None,
        ctypes.c_size_t(size_bytes),
        ctypes.c_int(mmap.PROT_READ | mmap.PROT_WRITE),
        ctypes.c_int(mmap.MAP_SHARED),
        ctypes.c_int(descriptor),
        ctypes.c_long(0),
    )
    if address == _MAP_FAILED:
        _checked(-1)
    return memoryview((ctypes.c_char * size_bytes).from_address(address)).cast("B")


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """Makes a system call by number and returns its result."""
    return _checked(_LIBC.syscall(ctypes.c_long(number), *(_passed(argument) for argument in arguments)))


def _passed(argument: int | ctypes.Array[ctypes.c_char] | None) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def _prctl(option: int, value: int, more: int = 0) -> None:
    arguments = (ctypes.c_ulong(each) for each in (value, more, 0, 0))
    _checked(_LIBC.prctl(ctypes.c_int(option), *arguments))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)
