"""Runs functions on untrusted bytes in isolated child processes.

A child is a new interpreter with an empty environment. Before it reads untrusted bytes, it permanently drops everything that decoding does
not need (see `confinement`): access to the memory of other users and of its parent, files, sockets, other processes, and the execution of
programs. Memory and CPU time are limited. The parent accepts only plain values, arrays, VestaErrors and frozen dataclasses from a child,
so a compromised child cannot execute code in its parent.

`Sandbox` is a pool of children for functions of bytes. `run_in_folder` starts one child for a single call that also needs the files of one
folder, such as an unpacked archive.
"""

from vesta_common.sandbox.folder import log_protections, run_in_folder
from vesta_common.sandbox.pool import Sandbox
from vesta_common.sandbox.process import Limits

__all__ = ["Limits", "Sandbox", "log_protections", "run_in_folder"]
