"""Confines a sandbox child before it reads untrusted bytes, in as many layers as the kernel supports.

| layer | removes access to |
|---|---|
| `separate-uid` | files and processes of root, if the platform runs as root |
| `namespaces` | the network, and System V IPC |
| `non-dumpable` | nothing; hides this process from other children |
| `no-new-privs` | set-user-id programs |
| `landlock` | all files except those of the call's folder; on newer kernels also TCP, abstract sockets, and signals to other processes |
| `seccomp` | all system calls outside an allow-list: no sockets, files, processes, tracing, or signals to other processes |

In a container with Kubernetes' RuntimeDefault profile and all capabilities dropped, only the layer `namespaces` is missing.
"""

import os
from collections.abc import Callable
from pathlib import Path

from vesta_common.sandbox import kernel, landlock, seccomp

NOBODY = 65534
"""User and group of children if the platform runs as root."""
_NAMESPACES = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC


def confine(folder: Path | None, *, as_nobody: bool) -> tuple[Path | None, dict[str, str]]:
    """Permanently drops everything that decoding does not need. All imports must be complete.

    Args:
        folder: the folder that remains readable and writable, if any.
        as_nobody: whether to switch to the user `NOBODY` if the process runs as root; the folder must then belong to that user.

    Returns:
        The path of the folder from now on: `/` if the root directory could be changed. And the missing layers with reasons.
    """
    missing: dict[str, str] = {}

    def apply(layer: str, act: Callable[[], None]) -> bool:
        try:
            act()
        except OSError as error:
            missing[layer] = error.strerror or str(error)
            return False
        return True

    has_namespaces = apply("namespaces", lambda: kernel.unshare(_NAMESPACES))
    seen = _entered(folder)
    if os.geteuid() == 0:
        if folder and (seen == folder or not as_nobody):
            missing["separate-uid"] = "the call's folder cannot be handed to another user"
        else:
            apply("separate-uid", _become_nobody)
    if not has_namespaces and apply("namespaces", lambda: kernel.unshare(kernel.CLONE_NEWUSER | _NAMESPACES)):
        del missing["namespaces"]
        seen = _entered(folder) if seen == folder else seen
    apply("non-dumpable", kernel.forbid_dumps)
    apply("no-new-privs", kernel.forbid_new_privileges)
    apply("landlock", lambda: landlock.restrict_files(seen))
    apply("seccomp", lambda: seccomp.allow_only(files=folder is not None))
    return seen, missing


def _entered(folder: Path | None) -> Path | None:
    """Makes the folder the root directory, if permitted. Returns the folder's path from now on."""
    if folder is None:
        return None
    try:
        os.chroot(folder)
        os.chdir("/")
    except OSError:
        return folder
    return Path("/")


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
