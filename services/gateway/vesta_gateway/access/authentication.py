"""Authenticates API keys against PostgreSQL, with a cache of a few seconds so that frequent calls cost no query.

A key deleted by this process is invalid immediately; a key deleted by another replica, within `cache_seconds`. Unknown keys have their own
cache, so that a flood of them evicts no valid key. A key that was valid before is looked up even during such a flood.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from vesta_common.clock import Clock
from vesta_common.errors import Unauthenticated

from vesta_gateway.access.caller import Caller, platform_owner
from vesta_gateway.access.key_secrets import SECRET_CHARACTERS_MAX, digest_of, digests_equal

ENTRIES_MAX = 20_000
UNKNOWN_MAX = 2_000
LOOKUPS_AT_ONCE_MAX = 4

FindCaller = Callable[[bytes], Caller | None]
"""Returns the caller of the key with this SHA-256. May block."""


@dataclass(frozen=True)
class _CachedLookup:
    """A cached lookup, valid until the clock reaches `until` and while no key or role changes."""

    caller: Caller | None
    until: float
    change: int


class Authenticator:
    """Authenticates callers by their API keys.

    Args:
        find: looks up a key in the store; called in a thread.
        owner_digest: SHA-256 of the platform owner's key.
        monotonic: a monotonic clock in seconds.
    """

    def __init__(
        self, find: FindCaller, owner_digest: bytes, cache: timedelta, clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        self._find = find
        self._owner_digest = owner_digest
        self._cache_seconds = cache.total_seconds()
        self._clock = clock
        self._monotonic = monotonic
        self._known: OrderedDict[bytes, _CachedLookup] = OrderedDict()
        self._unknown: OrderedDict[bytes, _CachedLookup] = OrderedDict()
        self._change = 0
        self._lookups = asyncio.Semaphore(LOOKUPS_AT_ONCE_MAX)

    async def authenticate(self, secret: str, admit: Callable[[], object] = lambda: None) -> Caller:
        """Returns the caller of a key.

        Args:
            admit: called before the lookup of a key that is not cached; an exception prevents the lookup.

        Raises:
            Unauthenticated: KEY_MISSING, KEY_UNKNOWN or KEY_EXPIRED.
        """
        if not secret:
            raise Unauthenticated(
                "this call requires an API key; send it as `Authorization: Bearer vesta_…`", reason="KEY_MISSING"
            )
        if len(secret) > SECRET_CHARACTERS_MAX:
            raise _unknown_key()
        digest = digest_of(secret)
        if digests_equal(digest, self._owner_digest):
            return platform_owner("owner")
        lookup = self._cached(digest) or await self._look_up(digest, admit)
        caller = lookup.caller
        if caller is None:
            raise _unknown_key()
        if caller.expire_time is not None and caller.expire_time <= self._clock.now():
            raise Unauthenticated(
                "the API key has expired; ask an owner of the project for a new one", reason="KEY_EXPIRED"
            )
        return caller

    def invalidate(self) -> None:
        """Invalidates all cached lookups, because a key or a role has changed."""
        self._change += 1

    def _cached(self, digest: bytes) -> _CachedLookup | None:
        lookup = self._known.get(digest) or self._unknown.get(digest)
        return lookup if lookup and lookup.change == self._change and lookup.until >= self._monotonic() else None

    async def _look_up(self, digest: bytes, admit: Callable[[], object]) -> _CachedLookup:
        async with self._lookups:
            lookup = self._cached(digest)
            if lookup is not None:  # a concurrent request has looked it up
                return lookup
            if digest not in self._known:
                admit()
            change = self._change  # before the lookup: a change during the lookup must invalidate its result
            caller = await asyncio.to_thread(self._find, digest)
        lookup = _CachedLookup(caller, self._monotonic() + self._cache_seconds, change)
        if caller is None:
            self._known.pop(digest, None)
            _keep(self._unknown, digest, lookup, UNKNOWN_MAX)
        else:
            self._unknown.pop(digest, None)
            _keep(self._known, digest, lookup, ENTRIES_MAX)
        return lookup


def _keep(lookups: OrderedDict[bytes, _CachedLookup], digest: bytes, lookup: _CachedLookup, entries_max: int) -> None:
    lookups[digest] = lookup
    lookups.move_to_end(digest)
    if len(lookups) > entries_max:
        lookups.popitem(last=False)


def _unknown_key() -> Unauthenticated:
    return Unauthenticated(
        "the API key is unknown or was revoked; check it, or ask an owner of the project for a new one",
        reason="KEY_UNKNOWN",
    )
