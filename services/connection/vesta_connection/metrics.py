"""Prometheus metrics of the storage."""

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from vesta_common.disk_space import disk_space


def export_storage_space(path: Path | None, registry: CollectorRegistry) -> None:
    """Exports the space of the file system that contains a path; nothing if the object store is on another machine."""
    if path is None:
        return
    free = Gauge(
        "vesta_connection_storage_free_bytes",
        "Free space on the file system of the object store, if it is on the same machine",
        registry=registry,
    )
    free.set_function(lambda: disk_space(path).free_bytes)
    size = Gauge(
        "vesta_connection_storage_size_bytes", "Size of the file system of the object store", registry=registry
    )
    size.set_function(lambda: disk_space(path).size_bytes)
