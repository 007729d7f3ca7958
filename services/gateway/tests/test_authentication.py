"""Keys: how they are made, known, forgotten and refused."""

import asyncio
import threading
from datetime import timedelta

import pytest
from vesta_common.clock import ManualClock
from vesta_common.errors import ResourceExhausted, Unauthenticated
from vesta_contracts.gateway.v1 import Role
from vesta_gateway.access.authentication import LOOKUPS_AT_ONCE_MAX, UNKNOWN_MAX, Authenticator
from vesta_gateway.access.caller import Caller
from vesta_gateway.access.key_secrets import digest_of, new_secret, presented_secret

OWNER = "vesta_owner"


class Keys:
    """Keys as a store would have them."""

    def __init__(self) -> None:
        self.by_digest: dict[bytes, Caller] = {}
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()

    def add(self, secret, expire_time=None):
        self.by_digest[digest_of(secret)] = Caller(
            "k", "projects/a", "projects/a/members/m", Role.ROLE_VIEWER, expire_time
        )

    def find(self, digest):
        found = self.by_digest.get(digest)
        self.asked += 1
        self.gate.wait(5)
        return found


class Watch:
    """A stopwatch that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def an_authenticator(keys, watch=None, clock=None):
    return Authenticator(keys.find, digest_of(OWNER), timedelta(seconds=5), clock or ManualClock(), watch or Watch())


def run(coroutine):
    return asyncio.run(coroutine)


def test_secrets_are_long_and_never_the_same():
    secrets = {new_secret() for _ in range(1000)}

    assert len(secrets) == 1000
    assert all(secret.startswith("vesta_") and len(secret) == 49 for secret in secrets)


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({"authorization": "Bearer vesta_x"}, "vesta_x"),
        ({"authorization": "bearer  vesta_x "}, "vesta_x"),
        ({"x-api-key": "vesta_y"}, "vesta_y"),
        ({"authorization": "Bearer vesta_x", "x-api-key": "vesta_y"}, "vesta_x"),
        ({"authorization": "Basic dXNlcg=="}, ""),
        ({}, ""),
    ],
)
def test_a_secret_is_read_from_either_header(headers, secret):
    assert presented_secret(headers) == secret


def test_the_secret_of_the_platform_owner_is_recognised():
    assert run(an_authenticator(Keys()).authenticate(OWNER)).is_platform_owner


def test_a_key_is_cached_for_a_limited_time():
    async def story():
        keys, watch = Keys(), Watch()
        keys.add("vesta_a")
        authenticator = an_authenticator(keys, watch)
        await asyncio.gather(*(authenticator.authenticate("vesta_a") for _ in range(20)))
        asked = keys.asked
        assert asked <= LOOKUPS_AT_ONCE_MAX
        await authenticator.authenticate("vesta_a")
        assert keys.asked == asked
        watch.seconds += 6
        await authenticator.authenticate("vesta_a")
        assert keys.asked == asked + 1

    run(story())


def test_a_deleted_key_is_rejected_immediately_where_deleted_and_soon_elsewhere():
    async def story():
        keys, watch = Keys(), Watch()
        keys.add("vesta_a")
        authenticator = an_authenticator(keys, watch)
        await authenticator.authenticate("vesta_a")
        keys.by_digest.clear()
        await authenticator.authenticate("vesta_a")
        watch.seconds += 6
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate("vesta_a")
        keys.add("vesta_a")
        authenticator.invalidate()
        await authenticator.authenticate("vesta_a")
        keys.by_digest.clear()
        authenticator.invalidate()
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate("vesta_a")

    run(story())


def test_a_lookup_before_a_revocation_is_not_cached_after_it():
    async def story():
        keys = Keys()
        keys.add("vesta_a")
        keys.gate.clear()
        authenticator = an_authenticator(keys)
        reading = asyncio.create_task(authenticator.authenticate("vesta_a"))
        while not keys.asked:
            await asyncio.sleep(0.01)
        keys.by_digest.clear()
        authenticator.invalidate()
        keys.gate.set()
        await reading
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate("vesta_a")

    run(story())


def test_an_expired_cached_key_is_rejected():
    async def story():
        keys, clock = Keys(), ManualClock()
        keys.add("vesta_a", clock.now() + timedelta(seconds=2))
        authenticator = an_authenticator(keys, clock=clock)
        await authenticator.authenticate("vesta_a")
        clock.advance(timedelta(seconds=2))
        with pytest.raises(Unauthenticated) as caught:
            await authenticator.authenticate("vesta_a")
        assert caught.value.reason == "KEY_EXPIRED"

    run(story())


@pytest.mark.parametrize(
    ("secret", "reason"), [("", "KEY_MISSING"), ("vesta_b", "KEY_UNKNOWN"), ("x" * 10_000, "KEY_UNKNOWN")]
)
def test_the_error_of_an_unknown_caller_says_what_is_missing(secret, reason):
    with pytest.raises(Unauthenticated) as caught:
        run(an_authenticator(Keys()).authenticate(secret))

    assert caught.value.reason == reason


def test_many_unknown_keys_use_bounded_memory_and_evict_no_valid_key():
    async def story():
        keys = Keys()
        keys.add("vesta_a")
        authenticator = an_authenticator(keys)
        await authenticator.authenticate("vesta_a")
        authenticator._unknown.update((str(number).encode(), None) for number in range(UNKNOWN_MAX))
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate("vesta_b")
        asked = keys.asked
        await authenticator.authenticate("vesta_a")

        assert len(authenticator._unknown) == UNKNOWN_MAX
        assert keys.asked == asked

    run(story())


def test_a_throttled_caller_is_not_looked_up_unless_cached():
    def refuse():
        raise ResourceExhausted("slow down")

    async def story():
        keys, watch = Keys(), Watch()
        keys.add("vesta_a")
        authenticator = an_authenticator(keys, watch)
        with pytest.raises(ResourceExhausted):
            await authenticator.authenticate("vesta_a", refuse)
        assert keys.asked == 0
        await authenticator.authenticate("vesta_a")
        watch.seconds += 6
        await authenticator.authenticate("vesta_a", refuse)
        authenticator.invalidate()
        await authenticator.authenticate("vesta_a", refuse)
        assert keys.asked == 3

    run(story())
