"""The address and API key of the command line: from options, from environment variables, or from a local platform."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_ADDRESS = "127.0.0.1:8081"


@dataclass(frozen=True)
class Connection:
    """The connection parameters of the platform."""

    address: str
    api_key: str


def find_connection(address: str | None, api_key: str | None, home: Path) -> Connection:
    """Returns the options, otherwise `VESTA_ADDRESS` and `VESTA_API_KEY`, otherwise those of the local platform in
    `home`.

    Raises:
        ValueError: there is no API key; the message suggests where to set it.
    """
    local = _local_address(home)
    address = address or os.environ.get("VESTA_ADDRESS") or local or DEFAULT_ADDRESS
    api_key = api_key or os.environ.get("VESTA_API_KEY")
    if not api_key and address == local:  # the owner key of the local platform is never sent to another address
        api_key = _local_key(home)
    if not api_key:
        raise ValueError(
            f"no API key for {address}: use --api-key, set VESTA_API_KEY, or run this next to a "
            f"platform that `make up` started ({home} has {local or 'none'})"
        )
    return Connection(address, api_key)


def _local_address(home: Path) -> str | None:
    path = home / "run" / "addresses.json"
    return str(json.loads(path.read_text())["gateway_grpc"]) if path.exists() else None


def _local_key(home: Path) -> str | None:
    path = home / "owner.key"
    return path.read_text().strip() if path.exists() else None
