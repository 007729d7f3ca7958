"""Landlock: denies a process access to files, and on newer kernels to TCP, abstract Unix sockets and signals. See landlock(7)."""

import ctypes
import os
import struct
from pathlib import Path

from vesta_common.sandbox.kernel import syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1
_ON_FILES = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 5: 0xFFFF}
"""Bit masks of all file rights by ABI version. A version that is not listed has the rights of the next lower one."""
_TCP_SINCE, _SCOPES_SINCE = 4, 6
_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(1, 6))
_MAKE_DIR, _MAKE_FILE, _REFER, _TRUNCATE = 1 << 7, 1 << 8, 1 << 13, 1 << 14
_READ_AND_WRITE = (
    *(_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE),
    *(_MAKE_DIR, _MAKE_FILE, _REFER, _TRUNCATE),
)


def restrict_files(folder: Path | None) -> None:
    """Permanently denies this process access to all files outside a folder. Inside it, files can be read and written but not executed.

    Raises:
        OSError: the kernel does not support Landlock, or it is disabled.
    """
    version = syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    on_files = _ON_FILES[max(known for known in _ON_FILES if known <= version)]
    rights = [on_files]
    if version >= _TCP_SINCE:
        rights.append(_BIND_AND_CONNECT)
    if version >= _SCOPES_SINCE:
        rights.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(rights)}Q", *rights)
    ruleset = syscall(_CREATE_RULESET, _buffer(attributes), len(attributes), 0)
    try:
        if folder:
            _allow_below(ruleset, folder, sum(_READ_AND_WRITE) & on_files)
        syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_below(ruleset: int, folder: Path, rights: int) -> None:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        rule = _buffer(struct.pack("=Qi", rights, descriptor))
        syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, len(content))
