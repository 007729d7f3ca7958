"""Where a local platform keeps what it knows: its folder, its ports, its secrets. The same folder finds everything again."""

import base64
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

_SERVICES = ("connection", "datasets", "annotation", "training", "serving", "pipelining", "conductor")
USUAL_PORTS = {
    "gateway": 8080,
    "gateway_grpc": 8081,
    "gateway_metrics": 7108,
    "postgres": 5433,
    "objects": 8333,
    "objects_master": 9333,
    "objects_volume": 9340,
    "objects_filer": 8888,
    "objects_admin": 13646,
    "events": 9092,
    "events_controller": 9093,
    "inference": 8001,
    "inference_http": 8000,
    "inference_metrics": 8002,
    **{name: 7001 + index for index, name in enumerate(_SERVICES)},
    **{f"{name}_metrics": 7101 + index for index, name in enumerate(_SERVICES)},
}
REPLICATED = (*_SERVICES, "gateway", "inference")
"""The programs that may have replicas; the second one of datasets is `datasets-2`, with doors of its own."""
REPLICAS_MAX = 9
# SeaweedFS listens for gRPC ten thousand above each of its ports.
TWIN_OFFSET = 10_000
_TWINNED = {"objects", "objects_master", "objects_volume", "objects_filer", "objects_admin"}
PORT_TRIES = 2_000
BROKERS = ("embedded", "apache")
HOST = "127.0.0.1"
# Of a socket's path the kernel takes 108 bytes; the rest is for its name and a suffix of the program's own.
SOCKET_FOLDER_LENGTH_MAX = 75


@dataclass(frozen=True)
class Home:
    """A platform's folder.

    Attributes:
        root: the folder, absolute.
        usual_ports: what to try first for each door.
    """

    root: Path
    usual_ports: dict[str, int] = field(default_factory=lambda: dict(USUAL_PORTS))

    def __post_init__(self) -> None:
        for path in (self.root, self.run, self.logs, self.data, self.inbox):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def run(self) -> Path:
        """What belongs to the running platform."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """A file a program."""
        return self.root / "logs"

    @property
    def data(self) -> Path:
        """The engines' own files."""
        return self.root / "data"

    @property
    def inbox(self) -> Path:
        """The one folder that folder Sources may read."""
        return self.root / "inbox"

    @property
    def identities(self) -> Path:
        """A folder a service with its certificate and key, and the authority beside them."""
        return self.root / "identities"

    @property
    def sockets(self) -> Path:
        """The folder of the Unix sockets: `run`, or a temporary folder of ours where that path is too long for a socket."""
        if len(os.fsencode(self.run)) <= SOCKET_FOLDER_LENGTH_MAX:
            return self.run
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"vesta-{os.geteuid()}-{digest}"

    def make_sockets(self) -> None:
        """Makes their folder.

        Raises:
            PermissionError: it is somebody else's.
        """
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        if self.sockets.stat().st_uid != os.geteuid():
            raise PermissionError(f"{self.sockets} is somebody else's; choose a home with a shorter path")

    def forget_sockets(self) -> None:
        """Removes their folder where it is a temporary one."""
        if self.sockets != self.run:
            shutil.rmtree(self.sockets, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One `up` or `down` at a time; a second one waits for the first."""
        with (self.run / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def owner_key_path(self) -> Path:
        """Where the platform owner's API key lies."""
        return self.root / "owner.key"

    @cached_property
    def owner_key(self) -> str:
        """The platform owner's API key, made when first asked for."""
        keep_first(self.owner_key_path, f"vesta_{secrets.token_urlsafe(32)}\n")
        return self.owner_key_path.read_text().strip()

    @property
    def owner_key_sha256(self) -> str:
        """What the gateway knows of it."""
        return hashlib.sha256(self.owner_key.encode()).hexdigest()

    @cached_property
    def secrets(self) -> dict[str, str]:
        """Passwords of the engines, made once."""
        path = self.run / "secrets.json"
        made = {name: secrets.token_urlsafe(24) for name in ("postgres_password", "s3_access_key", "s3_secret_key")}
        keep_first(path, json.dumps(made))
        return dict(json.loads(path.read_text()))

    @property
    def source_keys_path(self) -> Path:
        """Where the keys lie with which the secrets of Sources are encrypted: one a line, the first of which encrypts."""
        return self.root / "source.keys"

    @cached_property
    def source_keys(self) -> str:
        """Those keys, separated by commas; the first one is made when first asked for."""
        keep_first(self.source_keys_path, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode() + "\n")
        return ",".join(self.source_keys_path.read_text().split())

    @property
    def replicas(self) -> int:
        """How many of each service and of Triton run, as was last chosen; one where nobody did."""
        return int(self._replicas_path.read_text()) if self._replicas_path.exists() else 1

    def choose_replicas(self, count: int) -> None:
        """Chooses it, for the next start.

        Raises:
            RuntimeError: there cannot be so many.
        """
        if not 1 <= count <= REPLICAS_MAX:
            raise RuntimeError(f"{count} replicas cannot be; choose from 1 to {REPLICAS_MAX}")
        self._replicas_path.write_text(f"{count}\n")
        self.__dict__.pop("ports", None)

    def replicas_of(self, name: str) -> list[str]:
        """The programs that a word stands for: `datasets`, `datasets-2`, …"""
        if name not in REPLICATED:
            return [name]
        return [name, *(f"{name}-{number}" for number in range(2, self.replicas + 1))]

    @property
    def other_checkout(self) -> Path | None:
        """The checkout of another version, whose code the replicas after the first run; None where all run this one's."""
        path = self.run / "other_checkout"
        return Path(path.read_text().strip()) if path.exists() else None

    def choose_other_checkout(self, checkout: Path) -> None:
        """Chooses it, for the next start."""
        (self.run / "other_checkout").write_text(f"{checkout}\n")

    @property
    def _replicas_path(self) -> Path:
        return self.run / "replicas"

    @property
    def _usual_ports(self) -> dict[str, int]:
        """With the doors of replicas, which lie above all others."""
        doors = [
            f"{replica}{door.removeprefix(name)}"
            for name in REPLICATED
            for replica in self.replicas_of(name)[1:]
            for door in self.usual_ports
            if door == name or door.startswith(f"{name}_")
        ]
        first = max(self.usual_ports.values(), default=0) + 1
        return {**self.usual_ports, **{door: first + index for index, door in enumerate(doors)}}

    @property
    def was_started(self) -> bool:
        """Whether a platform has been started in it."""
        return self._ports_path.exists()

    @property
    def _broker_path(self) -> Path:
        return self.run / "broker"

    @property
    def broker(self) -> str:
        """Which broker it has: `embedded` or `apache`."""
        return self._broker_path.read_text().strip() if self._broker_path.exists() else BROKERS[0]

    def choose_broker(self, kind: str) -> None:
        """Gives a new home its broker.

        Raises:
            RuntimeError: there is no such broker, or the home has another one.
        """
        if kind not in BROKERS:
            raise RuntimeError(f"there is no broker {kind!r}; there are {', '.join(BROKERS)}")
        if self.was_started and kind != self.broker:
            raise RuntimeError(
                f"{self.root} has the broker {self.broker!r}, and may have events in it that nobody has read yet; a home keeps its "
                "broker: use another one (VESTA_HOME)"
            )
        self._broker_path.write_text(f"{kind}\n")

    @property
    def _ports_path(self) -> Path:
        return self.run / "ports.json"

    @cached_property
    def ports(self) -> dict[str, int]:
        """The port of each door, as chosen when the platform was last started; the usual one where it never was."""
        return {**self._usual_ports, **self._known_ports()}

    def choose_ports(self) -> dict[str, int]:
        """Chooses a free port for each door: the last one, else the usual one, else one above. Only for a platform that is down.

        Raises:
            RuntimeError: none of two thousand is free.
        """
        return self._choose({}, self._known_ports())

    def choose_missing_ports(self) -> dict[str, int]:
        """Likewise for the doors that a running platform does not have yet; those it has stay, for somebody listens there.

        Raises:
            RuntimeError: none of two thousand is free.
        """
        known = self._known_ports()
        return self.ports if known.keys() >= self._usual_ports.keys() else self._choose(known, {})

    def _known_ports(self) -> dict[str, int]:
        return dict(json.loads(self._ports_path.read_text())) if self._ports_path.exists() else {}

    def _choose(self, kept: dict[str, int], last: dict[str, int]) -> dict[str, int]:
        taken = {door for name, port in kept.items() for door in _doors(port, name in _TWINNED)}
        chosen = dict(kept)
        for name, usual in self._usual_ports.items():
            if name not in chosen:
                candidates = [last.get(name, usual), *range(usual, usual + PORT_TRIES)]
                chosen[name] = _pick(candidates, taken, name in _TWINNED)
                taken |= _doors(chosen[name], name in _TWINNED)
        self._ports_path.write_text(json.dumps(chosen, indent=2) + "\n")
        self.__dict__["ports"] = chosen
        return chosen

    def address(self, name: str) -> str:
        """HOST:PORT of a program's door."""
        return f"{HOST}:{self.ports[name]}"

    def addresses(self, name: str) -> str:
        """HOST:PORT of every replica of a program, separated by commas; of its other doors likewise, such as `gateway_grpc`."""
        program, _, door = name.partition("_")
        return ",".join(self.address(f"{replica}_{door}" if door else replica) for replica in self.replicas_of(program))

    def write_addresses(self, elsewhere: Mapping[str, str] = MappingProxyType({})) -> Path:
        """Writes `run/addresses.json`, which the demo, the command line and the tests read.

        Args:
            elsewhere: the addresses of doors that are not the home's own.
        """
        path = self.run / "addresses.json"
        addresses = {**{name: self.address(name) for name in self.ports}, **elsewhere}
        path.write_text(json.dumps(addresses, indent=2) + "\n")
        return path


def _doors(port: int, twinned: bool) -> set[int]:
    return {port, port + TWIN_OFFSET} if twinned else {port}


def _pick(candidates: list[int], taken: set[int], twinned: bool) -> int:
    for port in candidates:
        doors = _doors(port, twinned)
        if not doors & taken and all(is_free(door) for door in doors):
            return port
    raise RuntimeError(
        f"no port between {candidates[1]} and {candidates[-1]} is free; stop something that listens there"
    )


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def write_secret(path: Path, text: str) -> None:
    """Writes a file that its owner alone can read, whole or not at all."""
    _draft(path, text).replace(path)


def keep_first(path: Path, text: str) -> None:
    """Writes such a file where there is none; of several processes that do so at once, what the first one wrote stays."""
    if path.exists():
        return
    draft = _draft(path, text)
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def _draft(path: Path, text: str) -> Path:
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # which its owner alone can read
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return Path(draft)
