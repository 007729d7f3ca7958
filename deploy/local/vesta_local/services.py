"""Every service of the platform as a process: one table of who calls whom, and the settings that follow from it."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vesta_local.engines import objects, postgres
from vesta_local.home import Home
from vesta_local.program import Program

HEALTH_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True)
class Service:
    """One service.

    Attributes:
        name: its word.
        peers: the services it calls.
        settings: its own settings beside those that all share; values may name `{home}` and `{inference}`.
    """

    name: str
    peers: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()


SERVICES = (
    Service(
        "connection",
        peers=("datasets",),
        settings=(("FOLDER_ROOTS", "{inbox}"), ("BUCKET_PROTOCOLS", "s3"), ("INNER_HOSTS", "{objects}")),
    ),
    Service("datasets", peers=("connection",)),
    Service("annotation", peers=("datasets",)),
    Service("training", peers=("datasets",), settings=(("WORK_FOLDER", "{data}/training"),)),
    Service("serving", peers=("datasets", "training"), settings=(("TRITON_ADDRESS", "{inference}"),)),
    Service("pipelining", peers=("serving", "connection")),
    Service("conductor", peers=("datasets", "annotation", "training", "serving")),
)
GATEWAY_BACKENDS = tuple(service.name for service in SERVICES)


def programs(home: Home) -> list[Program]:
    """Every service and the gateway."""
    return [_program(home, service) for service in SERVICES] + [_gateway(home)]


def environment(home: Home, service: str) -> dict[str, str]:
    """The settings of one service, by environment variable."""
    found = next((entry for entry in SERVICES if entry.name == service), Service(service))
    words = {
        "inbox": home.inbox,
        "data": home.data,
        "objects": home.address("objects"),
        "inference": home.address("inference"),
    }
    settings = {
        "METRICS_ADDRESS": home.address(f"{service}_metrics"),
        "POSTGRES_URL": postgres.url(home),
        "S3_ENDPOINT_URL": objects.endpoint(home),
        "S3_ACCESS_KEY": home.secrets["s3_access_key"],
        "S3_SECRET_KEY": home.secrets["s3_secret_key"],
        "KAFKA_BOOTSTRAP": home.address("events"),
        **{f"{peer.upper()}_ADDRESS": home.address(peer) for peer in found.peers},
        **{name: value.format(**words) for name, value in found.settings},
    }
    return {f"VESTA_{service.upper()}_{name}": value for name, value in settings.items()}


def _process_environment(settings: dict[str, str]) -> dict[str, str]:
    """Beside the settings: one arena and one thread a library, for memory and for two cores' sake."""
    return {
        **settings,
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "2",
        "PYTHONUNBUFFERED": "1",
        "GRPC_VERBOSITY": "NONE",
        "PATH": os.environ["PATH"],
    }


def _program(home: Home, service: Service) -> Program:
    settings = environment(home, service.name)
    settings[f"VESTA_{service.name.upper()}_LISTEN_ADDRESS"] = home.address(service.name)
    address = home.address(service.name)
    return Program(
        name=service.name,
        command=[sys.executable, "-m", f"vesta_{service.name}"],
        address=address,
        is_healthy=lambda: is_serving(address),
        environment=_process_environment(settings),
        directory=home.run,
    )


def _gateway(home: Home) -> Program:
    settings = environment(home, "gateway") | {
        "VESTA_GATEWAY_REST_ADDRESS": home.address("gateway"),
        "VESTA_GATEWAY_GRPC_ADDRESS": home.address("gateway_grpc"),
        "VESTA_GATEWAY_OWNER_KEY_SHA256": home.owner_key_sha256,
        **{f"VESTA_GATEWAY_{backend.upper()}_ADDRESS": home.address(backend) for backend in GATEWAY_BACKENDS},
    }
    address = home.address("gateway_grpc")
    return Program(
        name="gateway",
        command=[sys.executable, "-m", "vesta_gateway"],
        address=home.address("gateway"),
        is_healthy=lambda: is_serving(address),
        environment=_process_environment(settings),
        directory=home.run,
    )


def is_serving(address: str) -> bool:
    """True where the service's health check says SERVING."""
    try:
        with grpc.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_SECONDS)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def missing_packages() -> list[str]:
    """Services whose package is not installed."""
    from importlib.util import find_spec

    return [name for name in (*GATEWAY_BACKENDS, "gateway") if find_spec(f"vesta_{name}") is None]


def write_settings(home: Home) -> Path:
    """Writes every service's settings to `run/settings.json`, readable by the owner alone: what `vesta_local env` prints from."""
    path = home.run / "settings.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({name: environment(home, name) for name in (*GATEWAY_BACKENDS, "gateway")}, indent=2))
    return path
