"""The home folder of a local platform: its data, ports and secrets. A restart with the same folder restores everything."""

import base64
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from vesta_local.ports import DEFAULT_PORTS, HOST, SERVICES, choose_ports
from vesta_local.secret_files import keep_first

REPLICATED = (*SERVICES, "gateway", "inference")
"""The programs that may have replicas. The second replica of datasets is `datasets-2`, with ports of its own."""
REPLICAS_MAX = 9
BROKERS = ("embedded", "apache")
# The kernel limits a socket's path to 108 bytes; the rest is for the file name and a suffix that the program appends.
SOCKET_FOLDER_LENGTH_MAX = 75


@dataclass(frozen=True)
class Home:
    """The home folder of a platform.

    Attributes:
        root: the absolute path of the folder.
        default_ports: the preferred port of each listener.
    """

    root: Path
    default_ports: dict[str, int] = field(default_factory=lambda: dict(DEFAULT_PORTS))

    def __post_init__(self) -> None:
        for path in (self.root, self.run, self.logs, self.data, self.inbox):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def run(self) -> Path:
        """The folder for files of the running platform."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """The folder for logs, one file per program."""
        return self.root / "logs"

    @property
    def data(self) -> Path:
        """The folder for the engines' data."""
        return self.root / "data"

    @property
    def inbox(self) -> Path:
        """The only folder that folder Sources may read."""
        return self.root / "inbox"

    @property
    def identities(self) -> Path:
        """The folder for certificates: the authority's, and one folder per service with its certificate and key."""
        return self.root / "identities"

    @property
    def sockets(self) -> Path:
        """The folder for Unix sockets: `run`, or a temporary folder if that path is too long for a socket."""
        if len(os.fsencode(self.run)) <= SOCKET_FOLDER_LENGTH_MAX:
            return self.run
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"vesta-{os.geteuid()}-{digest}"

    def make_sockets(self) -> None:
        """Creates the folder for sockets.

        Raises:
            PermissionError: the folder belongs to another user.
        """
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        if self.sockets.stat().st_uid != os.geteuid():
            raise PermissionError(f"{self.sockets} belongs to another user; choose a home with a shorter path")

    def remove_sockets(self) -> None:
        """Deletes the folder for sockets if it is a temporary one."""
        if self.sockets != self.run:
            shutil.rmtree(self.sockets, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the home, so that `up` and `down` do not run concurrently. Waits for the lock."""
        with (self.run / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def owner_key_path(self) -> Path:
        """The file with the API key of the platform owner."""
        return self.root / "owner.key"

    @cached_property
    def owner_key(self) -> str:
        """The API key of the platform owner, created at first use."""
        keep_first(self.owner_key_path, f"vesta_{secrets.token_urlsafe(32)}\n")
        return self.owner_key_path.read_text().strip()

    @property
    def owner_key_sha256(self) -> str:
        """The hash of the owner's API key, which the gateway is configured with."""
        return hashlib.sha256(self.owner_key.encode()).hexdigest()

    @cached_property
    def secrets(self) -> dict[str, str]:
        """The passwords of the engines, created at first use."""
        path = self.run / "secrets.json"
        generated = {
            name: secrets.token_urlsafe(24) for name in ("postgres_password", "s3_access_key", "s3_secret_key")
        }
        keep_first(path, json.dumps(generated))
        return dict(json.loads(path.read_text()))

    @property
    def source_keys_path(self) -> Path:
        """The file with the keys that encrypt the secrets of Sources, one per line; the first one encrypts."""
        return self.root / "source.keys"

    @cached_property
    def source_keys(self) -> str:
        """The keys that encrypt the secrets of Sources, separated by commas; the first key is created at first use."""
        keep_first(self.source_keys_path, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode() + "\n")
        return ",".join(self.source_keys_path.read_text().split())

    @property
    def replicas(self) -> int:
        """The number of replicas of each service and of Triton, as last chosen; 1 by default."""
        return int(self._replicas_path.read_text()) if self._replicas_path.exists() else 1

    def choose_replicas(self, count: int) -> None:
        """Sets the number of replicas for the next start.

        Raises:
            RuntimeError: the number is out of range.
        """
        if not 1 <= count <= REPLICAS_MAX:
            raise RuntimeError(f"{count} is not a valid number of replicas; choose from 1 to {REPLICAS_MAX}")
        self._replicas_path.write_text(f"{count}\n")
        self.__dict__.pop("ports", None)

    def replicas_of(self, name: str) -> list[str]:
        """Returns the programs of a name, one per replica: `datasets`, `datasets-2` and so on."""
        if name not in REPLICATED:
            return [name]
        return [name, *(f"{name}-{number}" for number in range(2, self.replicas + 1))]

    @property
    def other_checkout(self) -> Path | None:
        """The checkout of another version, whose code the replicas after the first run; None if all replicas run this version."""
        path = self.run / "other_checkout"
        return Path(path.read_text().strip()) if path.exists() else None

    def choose_other_checkout(self, checkout: Path) -> None:
        """Sets the other checkout for the next start."""
        (self.run / "other_checkout").write_text(f"{checkout}\n")

    @property
    def _replicas_path(self) -> Path:
        return self.run / "replicas"

    @property
    def _default_ports(self) -> dict[str, int]:
        """The preferred ports, including those of replicas, which follow all others."""
        listeners = [
            f"{replica}{listener.removeprefix(name)}"
            for name in REPLICATED
            for replica in self.replicas_of(name)[1:]
            for listener in self.default_ports
            if listener == name or listener.startswith(f"{name}_")
        ]
        first = max(self.default_ports.values(), default=0) + 1
        return {**self.default_ports, **{listener: first + index for index, listener in enumerate(listeners)}}

    @property
    def was_started(self) -> bool:
        """Whether a platform has been started in this home."""
        return self._ports_path.exists()

    @property
    def _broker_path(self) -> Path:
        return self.run / "broker"

    @property
    def broker(self) -> str:
        """The kind of the broker: `embedded` or `apache`."""
        return self._broker_path.read_text().strip() if self._broker_path.exists() else BROKERS[0]

    def choose_broker(self, kind: str) -> None:
        """Sets the broker of a new home.

        Raises:
            RuntimeError: the kind does not exist, or the home has another broker.
        """
        if kind not in BROKERS:
            raise RuntimeError(f"the broker {kind!r} does not exist; choose one of {', '.join(BROKERS)}")
        if self.was_started and kind != self.broker:
            raise RuntimeError(
                f"{self.root} has the broker {self.broker!r}, and may have events that were not consumed yet; a home keeps its "
                "broker: use another one (VESTA_HOME)"
            )
        self._broker_path.write_text(f"{kind}\n")

    @property
    def _ports_path(self) -> Path:
        return self.run / "ports.json"

    @cached_property
    def ports(self) -> dict[str, int]:
        """The port of each listener, as chosen at the last start; the default port if there was none."""
        return {**self._default_ports, **self._known_ports()}

    def choose_ports(self) -> dict[str, int]:
        """Chooses a free port for each listener: the last one, the default one, or a higher one. Only for a platform that is down.

        Raises:
            RuntimeError: none of 2,000 ports is free.
        """
        return self._choose({}, self._known_ports())

    def choose_missing_ports(self) -> dict[str, int]:
        """Chooses ports for the listeners that a running platform does not have yet; existing ports stay, because they are in use.

        Raises:
            RuntimeError: none of 2,000 ports is free.
        """
        known = self._known_ports()
        return self.ports if known.keys() >= self._default_ports.keys() else self._choose(known, {})

    def _known_ports(self) -> dict[str, int]:
        return dict(json.loads(self._ports_path.read_text())) if self._ports_path.exists() else {}

    def _choose(self, kept: dict[str, int], last: dict[str, int]) -> dict[str, int]:
        chosen = choose_ports(self._default_ports, kept, last)
        self._ports_path.write_text(json.dumps(chosen, indent=2) + "\n")
        self.__dict__["ports"] = chosen
        return chosen

    def address(self, name: str) -> str:
        """Returns HOST:PORT of a listener."""
        return f"{HOST}:{self.ports[name]}"

    def addresses(self, name: str) -> str:
        """Returns HOST:PORT of every replica of a program, or of another listener such as `gateway_grpc`, separated by commas."""
        program, _, listener = name.partition("_")
        return ",".join(
            self.address(f"{replica}_{listener}" if listener else replica) for replica in self.replicas_of(program)
        )

    def write_addresses(self, external: Mapping[str, str] = MappingProxyType({})) -> Path:
        """Writes `run/addresses.json`, which the demo, the command line and the tests read.

        Args:
            external: addresses of external engines, which replace the home's own.
        """
        path = self.run / "addresses.json"
        addresses = {**{name: self.address(name) for name in self.ports}, **external}
        path.write_text(json.dumps(addresses, indent=2) + "\n")
        return path
