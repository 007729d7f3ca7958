"""Runs functions on untrusted bytes in child processes that can reach nothing else.

A child is a fresh interpreter with an empty environment. Before it sees the first untrusted byte it gives up, for good, what
decoding does not need (`confinement`): other users' and its parent's memory, files, sockets, other processes, and further programs.
Memory and processor time are limited. A child answers only with plain values, arrays, errors of ours and frozen dataclasses, so
that one that was taken over cannot make its parent run anything either.

`Sandbox` is a pool of children for functions of bytes. `run_in_folder` starts one child for one call that also needs the files of
one folder, such as an unpacked archive.
"""

from vesta_common.sandbox.folder import log_protections, run_in_folder
from vesta_common.sandbox.pool import Sandbox
from vesta_common.sandbox.process import Limits

__all__ = ["Limits", "Sandbox", "log_protections", "run_in_folder"]
