"""`python -m vesta_conductor` runs the service."""

from vesta_common.events.dead_letters import replay_command
from vesta_common.runtime.service import run

from vesta_conductor.app import SERVICE, build
from vesta_conductor.settings import Settings

if __name__ == "__main__":
    run(SERVICE, Settings, build, {"replay-dead-letters": replay_command(SERVICE)})
