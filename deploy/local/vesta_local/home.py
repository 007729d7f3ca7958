"""Where a local platform keeps what it knows: its folder, its ports, its secrets. The same folder finds everything again."""

import hashlib
import json
import secrets
import socket
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

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
    "objects_admin": 23646,
    "events": 9092,
    "inference": 8001,
    "inference_http": 8000,
    "inference_metrics": 8002,
    **{name: 7001 + index for index, name in enumerate(_SERVICES)},
    **{f"{name}_metrics": 7101 + index for index, name in enumerate(_SERVICES)},
}
# SeaweedFS listens for gRPC ten thousand above each of its ports.
TWIN_OFFSET = 10_000
_TWINNED = {"objects", "objects_master", "objects_volume", "objects_filer", "objects_admin"}
PORT_TRIES = 2_000
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Home:
    """A platform's folder.

    Attributes:
        root: the folder, absolute.
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
    def owner_key_path(self) -> Path:
        """Where the platform owner's API key lies."""
        return self.root / "owner.key"

    @cached_property
    def owner_key(self) -> str:
        """The platform owner's API key, made when first asked for."""
        if not self.owner_key_path.exists():
            _write_secret(self.owner_key_path, f"vesta_{secrets.token_urlsafe(32)}\n")
        return self.owner_key_path.read_text().strip()

    @property
    def owner_key_sha256(self) -> str:
        """What the gateway knows of it."""
        return hashlib.sha256(self.owner_key.encode()).hexdigest()

    @cached_property
    def secrets(self) -> dict[str, str]:
        """Passwords of the engines, made once."""
        path = self.run / "secrets.json"
        if not path.exists():
            made = {name: secrets.token_urlsafe(24) for name in ("postgres_password", "s3_access_key", "s3_secret_key")}
            _write_secret(path, json.dumps(made))
        return dict(json.loads(path.read_text()))

    @cached_property
    def ports(self) -> dict[str, int]:
        """The ports of this platform: the usual ones where they were free when it was first started."""
        path = self.run / "ports.json"
        known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        missing = {name: port for name, port in self.usual_ports.items() if name not in known}
        if missing:
            taken = set(known.values()) | {port + TWIN_OFFSET for name, port in known.items() if name in _TWINNED}
            for name, port in missing.items():
                known[name] = _pick(port, taken, twin=name in _TWINNED)
                taken |= {known[name], known[name] + TWIN_OFFSET} if name in _TWINNED else {known[name]}
            path.write_text(json.dumps(known, indent=2))
        return known

    def forget_ports(self) -> None:
        """Makes the next platform pick anew; only for one that is down."""
        (self.run / "ports.json").unlink(missing_ok=True)
        self.__dict__.pop("ports", None)

    def address(self, name: str) -> str:
        """HOST:PORT of a program's door."""
        return f"{HOST}:{self.ports[name]}"

    def write_addresses(self) -> Path:
        """Writes `run/addresses.json`, which the demo, the command line and the tests read."""
        path = self.run / "addresses.json"
        path.write_text(json.dumps({name: self.address(name) for name in self.ports}, indent=2) + "\n")
        return path


def _pick(usual: int, taken: set[int], *, twin: bool) -> int:
    """The usual port if it is free, else one above it.

    Raises:
        RuntimeError: none of two thousand is free.
    """
    for port in range(usual, usual + PORT_TRIES):
        wanted = {port, port + TWIN_OFFSET} if twin else {port}
        if not wanted & taken and all(is_free(candidate) for candidate in wanted):
            return port
    raise RuntimeError(f"no port between {usual} and {usual + PORT_TRIES} is free; stop something that listens there")


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
