"""Installs Vesta from this bundle, on a machine that can reach only its registry or its node. It requires only Python 3.9.

    vesta-install verify                                       verifies the checksum of each file
    vesta-install registry registry.internal:5000/vesta        copies the images into a registry
    vesta-install node                                         loads the images into containerd on this node
    vesta-install registry … --install [-- OPTION…]            also runs helm, with further options

Both verify the checksums first, and print the helm command that installs the chart with these images.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from vesta_install.content import CHART, LAYOUT, Failure, images, verify
from vesta_install.registry import copy_to_registry


def main() -> int:
    """Returns the exit status."""
    options = arguments(sys.argv[1:])
    try:
        print(f"{verify()} files match their checksums", flush=True)
        if options.command == "registry":
            copy_to_registry(options)
            values = [f"image.registry={options.target}"]
        elif options.command == "node":
            load_into_node(options)
            values = [f"image.registry={images()[0][0].rpartition('/')[0]}"]
        else:
            return 0
        return finish(options, [*values, f"image.tag={images()[0][0].rpartition(':')[2]}"])
    except Failure as failure:
        print(f"vesta-install: {failure}", file=sys.stderr)
        return 1


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments; `options` are those after `--`."""
    end = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="verify|registry|node")
    commands.add_parser("verify", help="verifies the checksum of each file")
    registry = commands.add_parser("registry", help="copies the images into a registry")
    registry.add_argument(
        "target",
        metavar="HOST[:PORT][/PATH]",
        type=registry_name,
        help="the destination, as image.registry of the chart",
    )
    registry.add_argument(
        "--username", help="the password is read from --password-file or $VESTA_REGISTRY_PASSWORD, or prompted for"
    )
    registry.add_argument("--password-file", type=Path)
    registry.add_argument("--ca", type=Path, help="a CA bundle that verifies the certificate of the registry")
    registry.add_argument("--plain-http", action="store_true", help="the registry does not use TLS")
    node = commands.add_parser("node", help="loads the images into containerd on this node")
    node.add_argument("--ctr", default="ctr", help="the containerd client; `k3s ctr` for k3s")
    node.add_argument("--address", help="the containerd socket, if it is not the default")
    for command in (registry, node):
        command.add_argument("--install", action="store_true", help="run the helm command instead of printing it")
        command.add_argument(
            "--profile", action="append", metavar="NAME", help="a profile of the chart (values-NAME.yaml); small"
        )
        command.add_argument("--namespace", default="vesta")
    options = parser.parse_args(given[:end])
    options.options = given[end + 1 :]
    return options


def registry_name(text: str) -> str:
    """Parses `host/path`, the prefix of `/vesta-<name>:<tag>`."""
    if not re.fullmatch(r"[\w.-]+(\[[\da-f:]+\])?(:\d+)?(/[a-z\d]+([._-]+[a-z\d]+)*)*", text):
        raise argparse.ArgumentTypeError(f'"{text}" is not HOST[:PORT][/PATH], as in registry.internal:5000/vesta')
    return text


def load_into_node(options: argparse.Namespace) -> None:
    """Streams the images to containerd, under the names that the kubelet uses."""
    command = [*shlex.split(options.ctr), *(["--address", options.address] if options.address else [])]
    command += ["--namespace", "k8s.io", "images", "import", "-"]
    if not shutil.which(command[0]):
        raise Failure(
            f"{command[0]} is not installed: run this on a node as root, or set the containerd "
            "client with --ctr (`k3s ctr`, `microk8s ctr`)"
        )
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert process.stdin is not None
        with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
            for path in sorted(LAYOUT.rglob("*")):
                archive.add(path, path.relative_to(LAYOUT), recursive=False)
        process.stdin.close()
    except BrokenPipeError:
        pass  # ctr has printed the cause
    if process.wait():
        raise Failure(
            f"`{shlex.join(command)}` failed, see its output above; the containerd socket "
            "requires root, and its disk twice the size of the images"
        )
    for reference, _ in images():
        print(f"{reference}  loaded", flush=True)


def finish(options: argparse.Namespace, values: Sequence[str]) -> int:
    """Prints the helm command, or executes it."""
    command = [
        "helm",
        "upgrade",
        "--install",
        "vesta",
        str(CHART),
        "--namespace",
        options.namespace,
        "--create-namespace",
    ]
    for profile in options.profile or ["small"]:
        file = CHART / f"values-{profile}.yaml"
        if not file.is_file():
            known = ", ".join(sorted(path.stem[len("values-") :] for path in CHART.glob("values-*.yaml")))
            raise Failure(f'Unknown profile "{profile}"; profiles: {known}')
        command += ["--values", str(file)]
    command += [part for value in values for part in ("--set", value)] + [
        "--wait",
        "--timeout",
        "10m",
        *options.options,
    ]
    if not options.install:
        print(f"\nInstall it with\n\n  {shlex.join(command)}\n\nor let this do it: --install", flush=True)
        return 0
    if not shutil.which("helm"):
        raise Failure(
            "helm is not installed: install helm 3.14 or later, or run the printed command on a "
            "machine with helm, with the chart in this bundle"
        )
    print(shlex.join(command), flush=True)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
