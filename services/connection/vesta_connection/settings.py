"""Settings of the connection service, read from environment variables."""

from pathlib import Path

from cryptography.fernet import Fernet
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict
from vesta_common.rpc.addresses import PeerAddress
from vesta_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Settings, read once at start-up."""

    model_config = SettingsConfigDict(env_prefix="VESTA_CONNECTION_")

    datasets_address: PeerAddress = Field(description="HOST:PORT of the datasets service")
    folder_roots: str = Field(
        "", description="root folders that Sources of kind folder may read, separated by colons; none if empty"
    )
    bucket_protocols: str = Field(
        "s3", description="fsspec protocols that Sources of kind bucket may use, separated by commas"
    )
    inner_hosts: str = Field(
        "", description="hosts (or HOST:PORT) with private addresses that Sources may use, separated by commas"
    )
    secret_keys: SecretStr = Field(
        SecretStr(""),
        description="Fernet keys for the secrets of Sources, separated by commas: the first encrypts, "
        "all decrypt; Sources with a secret require at least one; see docs/operating.md",
    )
    sync_workers: int = Field(1, ge=1, le=16, description="the number of Syncs that this process runs concurrently")
    sandbox_processes: int = Field(2, ge=1, le=64, description="the number of child processes that decode images")

    @field_validator("secret_keys")
    @classmethod
    def _check_keys(cls, keys: SecretStr) -> SecretStr:
        for number, key in enumerate(_listed(keys.get_secret_value()), 1):
            try:
                Fernet(key)
            except ValueError as error:  # its message may contain the key
                raise ValueError(f"key {number} is not 32 bytes in URL-safe base64") from error
        return keys

    @property
    def secret_key_list(self) -> tuple[str, ...]:
        """`secret_keys` as a tuple."""
        return _listed(self.secret_keys.get_secret_value())

    @property
    def folder_root_paths(self) -> tuple[Path, ...]:
        """`folder_roots` as paths."""
        return tuple(Path(root) for root in self.folder_roots.split(":") if root)

    @property
    def bucket_protocol_names(self) -> tuple[str, ...]:
        """`bucket_protocols` as a tuple."""
        return _listed(self.bucket_protocols)

    @property
    def inner_host_names(self) -> tuple[str, ...]:
        """`inner_hosts` as a tuple."""
        return _listed(self.inner_hosts)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())
