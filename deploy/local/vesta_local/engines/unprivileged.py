"""Runs what refuses to run as root, PostgreSQL, as `nobody` where we are root; everybody else runs it as themselves."""

import os
import pwd
import shutil
from pathlib import Path

USER = "nobody"


def needs_other_user() -> bool:
    """True where we are root."""
    return os.geteuid() == 0


def own(*paths: Path) -> None:
    """Gives files or folders to the user that will read and write them."""
    if needs_other_user():
        entry = pwd.getpwnam(USER)
        for path in paths:
            os.chown(path, entry.pw_uid, entry.pw_gid)


def prefix(*paths: Path) -> list[str]:
    """What to put before a command so that it does not run as root; nothing where we are not root.

    A clone below `/root`, say, is closed to other users: then the command keeps the one capability that lets it pass
    (capabilities(7), CAP_DAC_OVERRIDE), instead of our opening folders that are not ours to open.

    Args:
        paths: what the command has to reach.

    Raises:
        RuntimeError: `setpriv` is missing; says what to install.
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
    """Whether any user can pass every folder on the way and, where it is a file, read it."""
    path = path.resolve()
    passable = all(parent.stat().st_mode & 0o001 for parent in path.parents)
    return passable and (path.is_dir() or bool(path.stat().st_mode & 0o004))
