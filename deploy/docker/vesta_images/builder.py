"""Builds images with buildah, which requires no daemon, or with docker, whichever is installed."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vesta_images import engine_version
from vesta_images.catalogue import DOCKERFILE, ROOT
from vesta_images.engine_version import ENGINES

USUAL_BASE = "docker.io/library/debian:bookworm-slim"
OWN_BASE = "localhost/vesta-base:bookworm"
SUITE = "bookworm"
MIRROR = "http://deb.debian.org"
_CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
# Files of debootstrap that a container never reads; licences are kept.
_LEFT_OUT = ("usr/share/man", "usr/share/info", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists", "var/log")
NO_BUILDER = (
    "Images cannot be built: neither buildah nor a running docker was found. Install "
    "buildah, which needs no daemon: `apt-get install buildah` (Debian, Ubuntu) or `dnf "
    "install buildah`"
)


@dataclass(frozen=True)
class Build:
    """The options of a build.

    Attributes:
        registry: the prefix of `vesta-<name>`; may have a path.
        tag: of all images but those of the bundled engines.
        base: the Debian base image.
        torch: the build of torch in the trainer, `cpu`, `pypi` or `cuda`.
        pip_conf: a pip.conf with a private index; None for PyPI.
        maven_settings: a settings.xml with a private Maven repository; None for Maven Central.
    """

    registry: str
    tag: str
    base: str
    torch: str = "cpu"
    pip_conf: Path | None = None
    maven_settings: Path | None = None

    def reference(self, name: str) -> str:
        """`registry/vesta-name:tag`."""
        return f"{self.registry}/vesta-{name}:{self.version(name)}"

    def version(self, name: str) -> str:
        """The tag of an image."""
        return engine_version.read() if name in ENGINES else self.tag


def find_builder() -> str:
    """`buildah` or `docker`.

    Raises:
        RuntimeError: neither is installed; the message suggests a fix.
    """
    if shutil.which("buildah"):
        return "buildah"
    if (
        shutil.which("docker")
        and subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    ):
        return "docker"
    raise RuntimeError(NO_BUILDER)


def build(builder: str, name: str, how: Build) -> None:
    """Builds one image; unchanged layers are reused.

    Raises:
        RuntimeError: the build failed; the builder has printed the cause.
    """
    arguments = {"IMAGE": name, "BASE": how.base, "TORCH": how.torch}
    command = ["buildah", "bud", "--isolation", "chroot", "--layers"] if builder == "buildah" else ["docker", "build"]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    # Set here and not in the Dockerfile: buildah 1.28 reuses the layer of a LABEL with build arguments, whatever their values.
    for key, value in {"version": how.version(name), "revision": _revision()}.items():
        command += ["--label", f"org.opencontainers.image.{key}={value}"]
    for secret, path in _secrets(how):
        command += ["--secret", f"id={secret},src={path}"]
    command += ["--file", str(DOCKERFILE), "--tag", how.reference(name), str(ROOT)]
    done = subprocess.run(command, env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=False)
    if done.returncode:
        raise RuntimeError(f"The image {how.reference(name)} cannot be built; see the output of {builder} above")


def _secrets(how: Build) -> list[tuple[str, str]]:
    certificates = next((os.environ[name] for name in _CERTIFICATES if os.environ.get(name)), "")
    files = {"ca": certificates, "pip.conf": how.pip_conf, "settings.xml": how.maven_settings}
    return [(name, str(path)) for name, path in files.items() if path]


def _revision() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def choose_base(builder: str, given: str, report: Callable[[str], None]) -> str:
    """Returns the base image: the given one, by default Docker's Debian, or one created here if that cannot be
    pulled.

    Raises:
        RuntimeError: no base can be pulled or created; the message suggests a fix.
    """
    if given:
        return given
    if builder == "docker":
        return USUAL_BASE
    if _has(OWN_BASE):
        return OWN_BASE
    if subprocess.run(["buildah", "pull", "--quiet", USUAL_BASE], capture_output=True, check=False).returncode == 0:
        return USUAL_BASE
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise RuntimeError(
            f"{USUAL_BASE} cannot be pulled: choose another base (`make images base=…`), or "
            "install debootstrap and run this as root, to create a base from Debian packages"
        )
    report(f"{USUAL_BASE} cannot be pulled; creating {OWN_BASE} from Debian packages …")
    make_base()
    return OWN_BASE


def _has(image: str) -> bool:
    return (
        subprocess.run(["buildah", "inspect", "--type", "image", image], capture_output=True, check=False).returncode
        == 0
    )


def make_base() -> None:
    """Creates `OWN_BASE` with debootstrap, like Docker's slim Debian.

    Raises:
        RuntimeError: it failed; the message has the cause.
    """
    container = _output(["buildah", "from", "scratch"])
    try:
        root = Path(_output(["buildah", "mount", container]))
        _output(["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(root), f"{MIRROR}/debian"])
        sources = (("debian", SUITE), ("debian", f"{SUITE}-updates"), ("debian-security", f"{SUITE}-security"))
        lines = [f"deb {MIRROR}/{archive} {suite} main\n" for archive, suite in sources]
        (root / "etc/apt/sources.list").write_text("".join(lines))
        for folder in _LEFT_OUT:
            for path in (root / folder).iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for path in (root / "usr/share/doc").rglob("*"):
            if path.is_file() and path.name != "copyright":
                path.unlink()
        _output(["buildah", "config", "--cmd", "/bin/sh", container])
        _output(["buildah", "commit", "--quiet", container, OWN_BASE])
    finally:
        _output(["buildah", "rm", container])


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout.strip()
