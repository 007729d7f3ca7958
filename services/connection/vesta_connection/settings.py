"""What the connection service can be told by its environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read once, at start."""

    model_config = SettingsConfigDict(env_prefix="VESTA_CONNECTION_")

    datasets_address: str = Field(description="HOST:PORT of the datasets service")
    folder_roots: str = Field(
        "", description="folders that folder Sources may read below, separated by colons; none if empty"
    )
    bucket_protocols: str = Field("s3", description="fsspec protocols that bucket Sources may use, separated by commas")
    inner_hosts: str = Field(
        "", description="hosts (or HOST:PORT) on inner addresses that may be reached, separated by commas"
    )
    sync_workers: int = Field(1, ge=1, le=16, description="Syncs that this process runs at the same time")
    sandbox_processes: int = Field(2, ge=1, le=64, description="children that decode images")

    @property
    def folder_root_paths(self) -> tuple[Path, ...]:
        """`folder_roots` as paths."""
        return tuple(Path(root) for root in self.folder_roots.split(":") if root)

    @property
    def bucket_protocol_names(self) -> tuple[str, ...]:
        """`bucket_protocols` one by one."""
        return _listed(self.bucket_protocols)

    @property
    def inner_host_names(self) -> tuple[str, ...]:
        """`inner_hosts` one by one."""
        return _listed(self.inner_hosts)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())
