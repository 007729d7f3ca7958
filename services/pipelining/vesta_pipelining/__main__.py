"""`python -m vesta_pipelining` runs the service."""

from vesta_common.events.dead_letters import replay_command
from vesta_common.runtime.service import run

from vesta_pipelining.app import build
from vesta_pipelining.settings import Settings
from vesta_pipelining.store import SERVICE

if __name__ == "__main__":
    run(SERVICE, Settings, build, {"replay-dead-letters": replay_command(SERVICE)})
