"""`python -m vesta_images build|lock|list`: builds the platform's images, or pins what they install; `make` calls it."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vesta_images import builder, layout, lock
from vesta_images.catalogue import BY_NAME, version


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m vesta_images")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lock", help="pin anew what each image installs")
    commands.add_parser("list", help="print the names of the images")
    building = commands.add_parser("build", help="build images")
    building.add_argument("--only", type=_names, default=list(BY_NAME), metavar="NAME,…", help="these images alone")
    building.add_argument("--registry", default="vesta.local", help="what comes before the images' names")
    building.add_argument("--tag", default=version(), help="the images' version")
    building.add_argument("--base", default="", help="the Debian 12 image to start from")
    building.add_argument(
        "--torch", choices=("cpu", "pypi", "cuda"), default="cpu", help="the trainer's build of torch"
    )
    building.add_argument("--pip-conf", type=Path, help="a pip.conf, for an index of your own")
    building.add_argument("--maven-settings", type=Path, help="a settings.xml, for a Maven repository of your own")
    building.add_argument("--layout", type=Path, help="a folder that also gets the images, as an OCI image layout")
    options = parser.parse_args(arguments)
    try:
        if options.command == "lock":
            lock.write()
        elif options.command == "list":
            _say("\n".join(BY_NAME))
        else:
            _build(options)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _build(options: argparse.Namespace) -> None:
    tool = builder.find_builder()
    base = builder.choose_base(tool, options.base, _say)
    how = builder.Build(options.registry, options.tag, base, options.torch, options.pip_conf, options.maven_settings)
    for name in options.only:
        started = time.monotonic()
        builder.build(tool, name, how)
        _say(f"{how.reference(name)} built in {time.monotonic() - started:.0f} s")
    if options.layout:
        layout.add(tool, [how.reference(name) for name in options.only], options.layout)
        for image in layout.images(options.layout):
            _say(f"{image.reference:<50} {image.compressed_bytes / 1e6:7.0f} MB to pull")


def _names(text: str) -> list[str]:
    names = [name for name in text.replace(",", " ").split() if name]
    unknown = sorted(set(names) - set(BY_NAME))
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"there is no image {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    return names


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
