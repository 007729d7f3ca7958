"""Turns a secret into a caller, from PostgreSQL, remembered for a few seconds so that a busy key costs nothing.

A key deleted in this process is forgotten at once; one deleted in another, within `cache_seconds`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from vesta_common.clock import Clock
from vesta_common.errors import Unauthenticated

from vesta_gateway.caller import Caller, platform_owner
from vesta_gateway.key_secrets import SECRET_CHARACTERS_MAX, digest_of, same

ENTRIES_MAX = 20_000
LOOKUPS_AT_ONCE_MAX = 4

FindCaller = Callable[[bytes], Caller | None]
"""Finds whom a secret's SHA-256 stands for. It may block."""


@dataclass(frozen=True)
class _Known:
    caller: Caller | None
    until: float


class Authenticator:
    """Knows callers by their secrets.

    Args:
        find: asks the store; called in a thread.
        owner_digest: SHA-256 of the platform owner's secret.
        monotonic: seconds of a clock that never turns back.
    """

    def __init__(
        self, find: FindCaller, owner_digest: bytes, cache: timedelta, clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        self._find = find
        self._owner_digest = owner_digest
        self._cache_seconds = cache.total_seconds()
        self._clock = clock
        self._monotonic = monotonic
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._forgotten_count = 0
        self._lookups = asyncio.Semaphore(LOOKUPS_AT_ONCE_MAX)

    async def authenticate(self, secret: str) -> Caller:
        """The caller that a secret stands for.

        Raises:
            Unauthenticated: nobody, or not any more.
        """
        if not secret:
            raise Unauthenticated(
                "this call needs a key; send it as `Authorization: Bearer vesta_…`", reason="KEY_MISSING"
            )
        if len(secret) > SECRET_CHARACTERS_MAX:
            raise _unknown()
        digest = digest_of(secret)
        if same(digest, self._owner_digest):
            return platform_owner("owner")
        known = self._known.get(digest)
        if known is None or known.until < self._monotonic():
            known = await self._look_up(digest)
        caller = known.caller
        if caller is None:
            raise _unknown()
        if caller.expire_time is not None and caller.expire_time <= self._clock.now():
            raise Unauthenticated("this key has expired; ask an owner of the project for another", reason="KEY_EXPIRED")
        return caller

    def forget(self) -> None:
        """Asks anew for every caller: a key or a role has changed."""
        self._forgotten_count += 1
        self._known.clear()

    async def _look_up(self, digest: bytes) -> _Known:
        async with self._lookups:
            known = self._known.get(digest)
            if known is not None and known.until >= self._monotonic():  # another request asked meanwhile
                return known
            forgotten_count = self._forgotten_count
            caller = await asyncio.to_thread(self._find, digest)
        known = _Known(caller, self._monotonic() + self._cache_seconds)
        if forgotten_count != self._forgotten_count:  # what was read may be what has just changed
            return known
        self._known[digest] = known
        self._known.move_to_end(digest)
        if len(self._known) > ENTRIES_MAX:
            self._known.popitem(last=False)
        return known


def _unknown() -> Unauthenticated:
    return Unauthenticated("this key is not known here; it was revoked, or never made", reason="KEY_UNKNOWN")
