"""`python -m vesta_datasets` runs the service."""

from vesta_common.events.dead_letters import replay_command
from vesta_common.runtime.service import run

from vesta_datasets.app import build
from vesta_datasets.settings import Settings
from vesta_datasets.store import SERVICE

if __name__ == "__main__":
    run(SERVICE, Settings, build, {"replay-dead-letters": replay_command(SERVICE)})
