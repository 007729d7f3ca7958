"""`python -m vesta_training` runs the service."""

from vesta_common.runtime.service import run

from vesta_training.app import build
from vesta_training.settings import Settings
from vesta_training.store import SERVICE

if __name__ == "__main__":
    run(SERVICE, Settings, build)
