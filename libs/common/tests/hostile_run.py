"""Runs hostile functions in a sandbox and prints what became of each; a program, so that it can be another user or in a container.

Argument: JSON with `user` (to become), `denied` (system calls that the kernel refuses here), `folder` (whether calls
may use one), `only_log` (to attempt nothing), and what `hostile_functions.attempts` is told.
"""

import ctypes
import json
import os
import struct
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from hostile_functions import attempt, attempts
from vesta_common.errors import VestaError
from vesta_common.sandbox import Limits, Sandbox, kernel, log_protections, run_in_folder

_EPERM = 0x00050001
_ALLOW = 0x7FFF0000
_DENIED = {"unshare": 272, "chroot": 161, "landlock_create_ruleset": 444, "seccomp": 317}
_PR_SET_SECCOMP = 22
_PRCTL = 157
ENOUGH = Limits(memory_bytes_max=1 << 30)
TIMEOUT = timedelta(seconds=30)


def deny(names: list[str]) -> None:
    """Lets system calls fail, as a container's seccomp profile does. `seccomp` means installing filters, by prctl too."""

    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    program = [instruction(0x20, 0)]
    for name in names:
        program += [instruction(0x15, _DENIED[name], 0, 1), instruction(0x06, _EPERM)]
    if "seccomp" in names:
        checked = [instruction(0x20, 16), instruction(0x15, _PR_SET_SECCOMP, 0, 1), instruction(0x06, _EPERM)]
        program += [instruction(0x15, _PRCTL, 0, len(checked)), *checked]
    program.append(instruction(0x06, _ALLOW))
    kernel.forbid_new_privileges()
    kernel.filter_system_calls(b"".join(program))


def main() -> None:
    """Prints, as JSON, each attempt with what became of it."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    if told["user"]:
        os.setgroups([])
        os.setgid(told["user"])
        os.setuid(told["user"])
    if told["denied"]:
        deny(told["denied"])
    if told["only_log"]:
        log_protections()
        return
    secret = ctypes.create_string_buffer(b"secret in memory")
    told.update(pid=os.getpid(), address=ctypes.addressof(secret))
    sys.stdout.write("OUTCOME " + json.dumps(in_folder(told) if told["folder"] else alone(told)))


def alone(told: dict[str, Any]) -> dict[str, str]:
    """Each attempt with its answer, or `failed: ` and the error."""
    sandbox = Sandbox(1, ENOUGH, ("hostile_functions",))
    names = [*attempts(told)]
    answers = sandbox.map(attempt, [{**told, "attempt": name} for name in names], TIMEOUT)
    sandbox.close()
    return {
        name: f"failed: {answer.reason} {answer.message}" if isinstance(answer, VestaError) else answer
        for name, answer in zip(names, answers, strict=True)
    }


def in_folder(told: dict[str, Any]) -> dict[str, str]:
    """Likewise, from a child that may use a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        found: dict[str, str] = run_in_folder("hostile_functions:attempt_all", Path(scratch), told, ENOUGH, TIMEOUT)
        return found


if __name__ == "__main__":
    main()
