"""The services of the platform as programs, with their settings."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from vesta_common.identity import PEERS

from vesta_local import identities, wheels
from vesta_local.engines import addresses, events
from vesta_local.health import is_answering, is_serving
from vesta_local.home import Home
from vesta_local.processes import mark_option
from vesta_local.program import Program

# Tansu checks for records at the beginning and in the middle of the wait, so that an event is delayed by at most half of it. It also
# reads no longer than the wait, beginning at the partition's first record. `embedded_consumer` doubles the wait on a busy machine.
FETCH_WAIT_MS = 100
FRAME_FETCH_WAIT_MS = 25  # for camera frames, which need low latency
TAIL_FETCH_WAIT_MS = 2000  # for live events, where the gateway follows all topics: a longer wait saves processor time


@dataclass(frozen=True)
class Service:
    """One service.

    Attributes:
        name: such as `datasets`.
        settings: in addition to those of every service. A value may contain the name of a listener or folder in braces.
        fetch_wait_ms: the maximum wait of a fetch from the embedded broker.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    fetch_wait_ms: int = FETCH_WAIT_MS

    @property
    def peers(self) -> tuple[str, ...]:
        """The services that it calls."""
        return PEERS[self.name]


_BEHIND_THE_GATEWAY = (
    Service(
        "connection",
        settings={
            "FOLDER_ROOTS": "{inbox}",
            "BUCKET_PROTOCOLS": "s3",
            "INNER_HOSTS": "{objects}",
            "SECRET_KEYS": "{source_keys}",
        },
    ),
    Service("datasets", settings={"WORK_FOLDER": "{data}/{replica}"}),
    Service("annotation"),
    Service("training", settings={"WORK_FOLDER": "{data}/{replica}"}),
    Service("serving", settings={"TRITON_ADDRESS": "{inference}"}),
    Service("pipelining", fetch_wait_ms=FRAME_FETCH_WAIT_MS),
    Service("conductor"),
)
SERVICES = (
    *_BEHIND_THE_GATEWAY,
    Service(
        "gateway",
        settings={
            "REST_ADDRESS": "{own}",
            "GRPC_ADDRESS": "{own_grpc}",
            "OWNER_KEY_SHA256": "{owner_key_sha256}",
            "WHEELS_FOLDER": "{wheels}",
        },
        fetch_wait_ms=TAIL_FETCH_WAIT_MS,
    ),
)
NAMES = tuple(service.name for service in SERVICES)
_BY_NAME = {service.name: service for service in SERVICES}
# In addition to the settings: limits malloc arenas and OpenMP threads, to save memory and for machines with two cores. Idle OpenMP
# threads sleep: threads that spin made a training on two busy cores 30 times slower. Hides packages that images do not have.
_PROCESS = {
    "PYTHONPATH": str(Path(__file__).with_name("absent")),
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONUNBUFFERED": "1",
    "GRPC_VERBOSITY": "NONE",
}


def programs(home: Home) -> list[Program]:
    """Returns the programs of all replicas of all services, the gateway last."""
    return [
        Program(
            name=replica,
            command=[sys.executable, "-X", mark_option(home), "-m", f"vesta_{service.name}"],
            address=home.address(replica),
            is_healthy=_health_check(home, replica),
            environment={**environment(home, replica), **_PROCESS, **_other_version(home, replica)},
            directory=home.run,
        )
        for service in SERVICES
        for replica in home.replicas_of(service.name)
    ]


def _other_version(home: Home, replica: str) -> dict[str, str]:
    """Returns the environment for a replica that runs the code of another version, as in a rolling update: its packages come first."""
    checkout, (name, _, number) = home.other_checkout, replica.partition("-")
    if checkout is None:
        return {}
    if not number:
        return {f"VESTA_{name.upper()}_POST_MIGRATIONS": "false"}
    packages = [checkout / "libs" / "contracts", checkout / "libs" / "common", *sorted(checkout.glob("services/*"))]
    return {"PYTHONPATH": ":".join(map(str, packages))}


def environment(home: Home, replica: str) -> dict[str, str]:
    """Returns the settings of one service, or of a replica such as `datasets-2`, by environment variable."""
    name = replica.partition("-")[0]
    service = _BY_NAME[name]
    engines = addresses.admin_settings(home)
    words = {
        **{listener: home.address(listener) for listener in home.ports},
        "objects": urlsplit(engines.s3_endpoint_url).netloc,
        "own": home.address(replica),
        "own_grpc": home.address(f"{replica}_grpc") if name == "gateway" else "",
        "inference": engines.triton_address,
        "replica": replica,
        "inbox": home.inbox,
        "data": home.data,
        "owner_key_sha256": home.owner_key_sha256,
        "source_keys": home.source_keys,
        "wheels": wheels.FOLDER,
    }
    settings = {
        "LISTEN_ADDRESS": home.address(replica),
        "METRICS_ADDRESS": home.address(f"{replica}_metrics"),
        **addresses.service_settings(home),
        **{f"{peer.upper()}_ADDRESS": home.addresses(peer) for peer in service.peers},
        **{setting: value.format(**words) for setting, value in service.settings.items()},
        **_fetch_settings(home, service),
        **_identity_settings(home, name),
    }
    return {f"VESTA_{name.upper()}_{setting}": value for setting, value in settings.items()}


def _identity_settings(home: Home, name: str) -> dict[str, str]:
    files = identities.credential_files(home.identities, name)
    return {
        "IDENTITY_CERTIFICATE_FILE": str(files.certificate),
        "IDENTITY_KEY_FILE": str(files.key),
        "IDENTITY_CA_FILE": str(files.authorities),
    }


def _fetch_settings(home: Home, service: Service) -> dict[str, str]:
    """Returns the fetch wait for the embedded broker. Apache Kafka responds as soon as there are records, and needs no setting."""
    return {} if events.is_apache(home) else {"KAFKA_FETCH_WAIT_MS": str(service.fetch_wait_ms)}


def _health_check(home: Home, replica: str) -> Callable[[], bool]:
    if replica.startswith("gateway"):
        return partial(is_answering, home.address(replica), "/healthz/ready")
    return partial(is_serving, home.address(replica))


def missing_packages() -> list[str]:
    """Returns the services whose package is not installed."""
    return [name for name in NAMES if find_spec(f"vesta_{name}") is None]
