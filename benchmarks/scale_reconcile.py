"""The time in which the conductor observes the state of a loop on a dataset of a million items."""

import statistics
import time
from contextlib import ExitStack
from datetime import UTC, datetime

from figures import Figure
from vesta import Vesta
from vesta_common.identity import Identity
from vesta_common.rpc.client import open_channel
from vesta_conductor.execution.control_answers import ControlAnswers
from vesta_conductor.execution.observe import observe
from vesta_conductor.peers import Peers
from vesta_conductor.reconciliation.names import LoopNames
from vesta_conductor.reconciliation.policy import Policy
from vesta_conductor.reconciliation.state import History, RoundRecord
from vesta_contracts.annotation.v1 import Campaign, CreateCampaignRequest
from vesta_contracts.conductor.v1 import LoopPolicy, Round
from vesta_local import identities
from vesta_local.platform import Platform

CALLS = 40
GOAL_MS = 50
TEST_LABELS = 1_000_000  # more than exist
PEERS = ("datasets", "annotation", "training", "serving")


def measure(platform: Platform, dataset: str) -> Figure:
    """`scale_reconcile_ms`: the median of observations while annotators label and the test split lacks labels, with the identity of
    the conductor. Decisions are computed from the observation without other calls.
    """
    project = dataset.partition("/datasets/")[0]
    with Vesta(platform.home.address("gateway_grpc"), platform.home.owner_key) as owner:
        request = CreateCampaignRequest(parent=project, campaign_id="scale", campaign=Campaign(dataset=dataset))
        owner.campaigns.CreateCampaign(request)
    identity = Identity(identities.credential_files(platform.home.identities, "conductor"))
    began = Round(number=1)
    began.start_time.FromDatetime(datetime.now(UTC))
    history = History(RoundRecord(began))
    names, policy = (
        LoopNames(f"{project}/loops/scale", dataset),
        Policy.of(LoopPolicy(dataset=dataset, test_labels=TEST_LABELS)),
    )
    with ExitStack() as stack:
        channels = (stack.enter_context(open_channel(platform.home.address(service), identity)) for service in PEERS)
        peers, control = Peers.of_channels(*channels), ControlAnswers()
        found = []
        for _ in range(CALLS):
            start = time.perf_counter()
            observe(peers, names, policy, history, control, datetime.now(UTC))
            found.append((time.perf_counter() - start) * 1000)
    details = {"p90_ms": statistics.quantiles(found, n=10)[8]}
    return Figure("scale_reconcile_ms", statistics.median(found), GOAL_MS, lower=True, details=details)
