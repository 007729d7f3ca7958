"""What a sandbox's child gives up before it sees untrusted bytes: layer upon layer, as many as the kernel grants.

| layer | what it takes away |
|---|---|
| `separate-uid` | files and processes of root, where the platform runs as root |
| `namespaces` | the network, and System V IPC |
| `non-dumpable` | nothing: closes this process to the children beside it |
| `no-new-privs` | set-user-id programs |
| `landlock` | all files but those of the call's folder; TCP, abstract sockets and signals to others on newer kernels |
| `seccomp` | all system calls but those of a table: no sockets, files, processes, tracing or signals to others |

In a container with Kubernetes' RuntimeDefault profile, all capabilities dropped, namespaces are missing, and the rest is there.
"""

import os
from collections.abc import Callable
from pathlib import Path

from vesta_common.sandbox import kernel, landlock, seccomp

NOBODY = 65534
"""The user and group that children of root become."""
_NAMESPACES = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC


def confine(folder: Path | None, *, as_nobody: bool) -> tuple[Path | None, dict[str, str]]:
    """Gives up, for good, what decoding does not need. Everything that is still to be imported must have been.

    Args:
        folder: the one folder that may be read and written, if any.
        as_nobody: whether to become another user where this one is root; the folder must belong to `NOBODY` then.

    Returns:
        What the folder is called from now on: `/` where the root directory could be changed. And the layers that are missing,
        each with the reason.
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
    """The folder as root directory, if this process may change that."""
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
