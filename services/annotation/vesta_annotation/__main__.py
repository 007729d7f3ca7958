"""`python -m vesta_annotation` runs the service."""

from vesta_common.runtime.service import run

from vesta_annotation.app import build
from vesta_annotation.settings import Settings
from vesta_annotation.store import SERVICE

if __name__ == "__main__":
    run(SERVICE, Settings, build)
