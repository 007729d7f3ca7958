"""Runs a program that refuses to run as root, PostgreSQL, as `nobody` if the current user is root."""

import os
import pwd
import shutil
from pathlib import Path

USER = "nobody"


def needs_other_user() -> bool:
    """Whether the current user is root."""
    return os.geteuid() == 0


def own(*paths: Path) -> None:
    """Changes the owner of files or folders to the user that runs the program."""
    if needs_other_user():
        entry = pwd.getpwnam(USER)
        for path in paths:
            os.chown(path, entry.pw_uid, entry.pw_gid)


def prefix(*paths: Path) -> list[str]:
    """Returns the prefix of a command that makes it run as another user than root; empty if the current user is not root.

    Other users cannot access a clone below `/root`, for example. The command then keeps the one capability that permits it
    (capabilities(7), CAP_DAC_OVERRIDE), so that no permissions of existing folders need to change.

    Args:
        paths: files and folders that the command must access.

    Raises:
        RuntimeError: `setpriv` is not installed; suggests what to install.
    """
    if not needs_other_user():
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise RuntimeError(
            "PostgreSQL does not run as root, and there is no `setpriv`: install util-linux, or run as another user"
        )
    entry = pwd.getpwnam(USER)
    command = [setpriv, f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    if not all(_is_open(path) for path in paths):
        command += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return [*command, "--"]


def _is_open(path: Path) -> bool:
    """Whether every user can access all parent folders and, for a file, read it."""
    path = path.resolve()
    passable = all(parent.stat().st_mode & 0o001 for parent in path.parents)
    return passable and (path.is_dir() or bool(path.stat().st_mode & 0o004))
