"""The distribution of load over two replicas: the share of calls and of models of the second replica during a loop."""

import loop
from figures import Figure
from vesta import Vesta
from vesta_local import replica_load
from vesta_local.testing import running_platform

GOAL = 0.4
CALLS_MIN = 30  # fewer calls of a service give no reliable share


def measure(port_block: int) -> list[Figure]:
    """Runs a loop on its own platform, with two replicas of each service and of Triton."""
    with running_platform(block=port_block, replicas=2) as platform:
        with Vesta(platform.home.addresses("gateway_grpc"), platform.home.owner_key) as owner:
            loop.turn(owner, platform, loop.digits(platform))
        calls = replica_load.calls_per_replica(platform.home)
        models = [float(len(names)) for names in replica_load.models_per_triton(platform.home)]
    counted = {name: of for name, of in calls.items() if sum(of) >= CALLS_MIN}
    shares = {name: min(of) / sum(of) for name, of in counted.items()}
    return [
        Figure(
            "replica_calls_share",
            min(shares.values()),
            GOAL,
            lower=False,
            baseline="the calls of the service where the lesser replica got least",
            details={**shares, "calls": float(sum(map(sum, calls.values())))},
        ),
        Figure(
            "replica_models_share",
            min(models) / sum(models),
            GOAL,
            lower=False,
            baseline="the models in both Tritons",
            details={"first": models[0], "second": models[1]},
        ),
    ]
