"""`python -m vesta_connection` runs the service."""

from vesta_common.runtime.service import run

from vesta_connection.app import build, encrypt_secrets
from vesta_connection.settings import Settings
from vesta_connection.store import SERVICE

if __name__ == "__main__":
    run(SERVICE, Settings, build, {"encrypt-secrets": encrypt_secrets})
