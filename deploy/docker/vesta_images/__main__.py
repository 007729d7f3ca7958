"""`python -m vesta_images build|bundle|lock|list`: builds and packs the images of the platform, or pins their packages; `make` calls it."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from vesta_images import builder, bundle, engine_version, layout, lock
from vesta_images.catalogue import BY_NAME, ROOT, version


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m vesta_images")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lock", help="pin the packages of each image again")
    commands.add_parser("list", help="print the names of the images")
    building = commands.add_parser("build", help="build images")
    building.add_argument("--only", type=_names, default=list(BY_NAME), metavar="NAME,…", help="only these images")
    building.add_argument(
        "--layout", type=Path, help="a folder to which the images are also written, as an OCI image layout"
    )
    bundling = commands.add_parser("bundle", help="build images and pack them with the chart into one archive")
    bundling.add_argument("--file", type=Path, help="the archive; dist/vesta-<tag>.tar")
    bundling.add_argument("--layout", type=Path, help="an OCI image layout with the images, which are then not built")
    for command in (building, bundling):
        command.add_argument("--registry", default="vesta.local", help="the prefix of the image names")
        command.add_argument("--tag", default=version(), help="the tag of all images but those of the bundled engines")
        command.add_argument("--base", default="", help="the Debian 12 base image")
        command.add_argument(
            "--torch", choices=("cpu", "pypi", "cuda"), default="cpu", help="the torch build of the trainer"
        )
        command.add_argument("--pip-conf", type=Path, help="a pip.conf, for a private package index")
        command.add_argument("--maven-settings", type=Path, help="a settings.xml, for a private Maven repository")
    options = parser.parse_args(arguments)
    try:
        if options.command == "lock":
            lock.write()
            engine_version.write()
        elif options.command == "list":
            _say("\n".join(BY_NAME))
        elif options.command == "build":
            _build(options, options.only, options.layout)
        else:
            _bundle(options)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _build(options: argparse.Namespace, names: Sequence[str], folder: Path | None) -> None:
    tool = builder.find_builder()
    base = builder.choose_base(tool, options.base, _say)
    how = builder.Build(options.registry, options.tag, base, options.torch, options.pip_conf, options.maven_settings)
    for name in names:
        started = time.monotonic()
        builder.build(tool, name, how)
        _say(f"{how.reference(name)} built in {time.monotonic() - started:.0f} s")
    if folder:
        layout.add(tool, [how.reference(name) for name in names], folder)
        for image in layout.images(folder):
            _say(f"{image.reference:<50} {image.compressed_bytes / 1e6:7.0f} MB to pull")


def _bundle(options: argparse.Namespace) -> None:
    name = f"vesta-{options.tag}"
    archive = options.file or ROOT / "dist" / f"{name}.tar"
    with tempfile.TemporaryDirectory(prefix="vesta-") as scratch:
        folder = options.layout or Path(scratch) / "images"
        if not options.layout:
            _build(options, list(BY_NAME), folder)
        digest = bundle.write(folder, archive, name)
    _say(f"{archive}: {archive.stat().st_size / 1e6:.0f} MB, SHA-256 {digest}")


def _names(text: str) -> list[str]:
    names = [name for name in text.replace(",", " ").split() if name]
    unknown = sorted(set(names) - set(BY_NAME))
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown image {', '.join(unknown)}; images: {', '.join(BY_NAME)}")
    return names


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
