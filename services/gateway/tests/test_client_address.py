"""Clients behind a proxy are told apart, and nobody passes for another."""

import httpx
import pytest
from grpc import RpcError, StatusCode
from vesta_contracts.gateway.v1 import ApiKeyServiceStub, GetIdentityRequest
from vesta_gateway.rest.client_address import Proxies


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ("", "10.0.0.1", ["203.0.113.9"], "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.0/8", "10.9.9.9", ["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.0/8", "10.9.9.9", ["198.51.100.1, 203.0.113.9", "10.0.0.2:4711"], "203.0.113.9"),
        ("10.0.0.0/8", "192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["nonsense"], "nonsense"),
        ("fd00::/8, 10.0.0.1", "fd00::1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("*", "10.0.0.1", ["203.0.113.9, 198.51.100.1"], "203.0.113.9"),
    ],
)
def test_the_client_is_the_last_untrusted_hop(trusted, peer, forwarded, client):
    assert Proxies(trusted).client_of(peer, forwarded) == client


def test_an_invalid_address_or_network_is_rejected():
    with pytest.raises(ValueError, match="nonsense"):
        Proxies("10.0.0.1,nonsense")


@pytest.mark.parametrize("door", ["rest", "grpc"])
def test_a_client_that_guesses_keys_does_not_block_others_behind_the_same_proxy(start_gateway, door):
    running = start_gateway(
        trusted_proxies="127.0.0.0/8", unauthenticated_requests_per_second=0.001, unauthenticated_requests_burst=2
    )

    def is_limited(client: str) -> bool:
        if door == "rest":
            headers = {"x-forwarded-for": client, "x-api-key": "vesta_guessed"}
            return httpx.get(f"{running.url}/v1/identity", headers=headers).status_code == 429
        metadata = [("x-forwarded-for", client), ("x-api-key", "vesta_guessed")]
        with running.channel() as channel, pytest.raises(RpcError) as refused:
            ApiKeyServiceStub(channel).GetIdentity(GetIdentityRequest(), metadata=metadata)
        return refused.value.code() is StatusCode.RESOURCE_EXHAUSTED

    assert [is_limited("203.0.113.9") for _ in range(3)] == [False, False, True]
    assert not is_limited("198.51.100.1")
