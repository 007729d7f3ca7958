"""The ports of a local platform: the preferred one of each listener, and the choice of free ones."""

import socket
from collections.abc import Mapping

SERVICES = ("connection", "datasets", "annotation", "training", "serving", "pipelining", "conductor")
DEFAULT_PORTS = {
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
    **{name: 7001 + index for index, name in enumerate(SERVICES)},
    **{f"{name}_metrics": 7101 + index for index, name in enumerate(SERVICES)},
}
# SeaweedFS serves gRPC on each of its ports plus 10,000.
GRPC_PORT_OFFSET = 10_000
_WITH_GRPC_PORT = {"objects", "objects_master", "objects_volume", "objects_filer", "objects_admin"}
PORT_TRIES = 2_000
HOST = "127.0.0.1"


def choose_ports(defaults: Mapping[str, int], kept: Mapping[str, int], last: Mapping[str, int]) -> dict[str, int]:
    """Chooses a free port for each listener: the kept one, the last one, the default one, or a higher one.

    Args:
        defaults: the preferred port of each listener.
        kept: ports that are in use by their listeners.
        last: ports that were chosen before.

    Raises:
        RuntimeError: none of 2,000 ports is free.
    """
    taken = {number for name, port in kept.items() for number in _ports_of(port, name in _WITH_GRPC_PORT)}
    chosen = dict(kept)
    for name, default in defaults.items():
        if name not in chosen:
            candidates = [last.get(name, default), *range(default, default + PORT_TRIES)]
            chosen[name] = _pick(candidates, taken, name in _WITH_GRPC_PORT)
            taken |= _ports_of(chosen[name], name in _WITH_GRPC_PORT)
    return chosen


def _ports_of(port: int, has_grpc_port: bool) -> set[int]:
    return {port, port + GRPC_PORT_OFFSET} if has_grpc_port else {port}


def _pick(candidates: list[int], taken: set[int], has_grpc_port: bool) -> int:
    for port in candidates:
        ports = _ports_of(port, has_grpc_port)
        if not ports & taken and all(is_free(number) for number in ports):
            return port
    raise RuntimeError(
        f"no port between {candidates[1]} and {candidates[-1]} is free; stop something that listens there"
    )


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
