"""Turns a secret into a caller, from PostgreSQL, remembered for a few seconds so that a busy key costs nothing.

A key deleted in this process is forgotten at once; one deleted in another, within `cache_seconds`. Secrets that stand for nobody are
remembered apart, so that a flood of them drives out no good key; a key that was good before is looked up whatever the flood.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from vesta_common.clock import Clock
from vesta_common.errors import Unauthenticated

from vesta_gateway.access.caller import Caller, platform_owner
from vesta_gateway.access.key_secrets import SECRET_CHARACTERS_MAX, digest_of, same

ENTRIES_MAX = 20_000
UNKNOWN_MAX = 2_000
LOOKUPS_AT_ONCE_MAX = 4

FindCaller = Callable[[bytes], Caller | None]
"""Finds whom a secret's SHA-256 stands for. It may block."""


@dataclass(frozen=True)
class _Answer:
    """What the store said, good until the moment `until` of the clock, and until something changes."""

    caller: Caller | None
    until: float
    change: int


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
        self._known: OrderedDict[bytes, _Answer] = OrderedDict()
        self._unknown: OrderedDict[bytes, _Answer] = OrderedDict()
        self._change = 0
        self._lookups = asyncio.Semaphore(LOOKUPS_AT_ONCE_MAX)

    async def authenticate(self, secret: str, admit: Callable[[], object] = lambda: None) -> Caller:
        """The caller that a secret stands for.

        Args:
            admit: called before a secret that is new here is looked up; what it raises refuses that.

        Raises:
            Unauthenticated: nobody, or not any more.
        """
        if not secret:
            raise Unauthenticated(
                "this call needs a key; send it as `Authorization: Bearer vesta_…`", reason="KEY_MISSING"
            )
        if len(secret) > SECRET_CHARACTERS_MAX:
            raise _nobody()
        digest = digest_of(secret)
        if same(digest, self._owner_digest):
            return platform_owner("owner")
        answer = self._remembered(digest) or await self._look_up(digest, admit)
        caller = answer.caller
        if caller is None:
            raise _nobody()
        if caller.expire_time is not None and caller.expire_time <= self._clock.now():
            raise Unauthenticated("this key has expired; ask an owner of the project for another", reason="KEY_EXPIRED")
        return caller

    def forget(self) -> None:
        """Asks anew for every caller: a key or a role has changed."""
        self._change += 1

    def _remembered(self, digest: bytes) -> _Answer | None:
        found = self._known.get(digest) or self._unknown.get(digest)
        return found if found and found.change == self._change and found.until >= self._monotonic() else None

    async def _look_up(self, digest: bytes, admit: Callable[[], object]) -> _Answer:
        async with self._lookups:
            found = self._remembered(digest)
            if found is not None:  # another request asked meanwhile
                return found
            if digest not in self._known:
                admit()
            change = self._change  # before the reading: what is read may be what changes meanwhile
            caller = await asyncio.to_thread(self._find, digest)
        answer = _Answer(caller, self._monotonic() + self._cache_seconds, change)
        if caller is None:
            self._known.pop(digest, None)
            _keep(self._unknown, digest, answer, UNKNOWN_MAX)
        else:
            self._unknown.pop(digest, None)
            _keep(self._known, digest, answer, ENTRIES_MAX)
        return answer


def _keep(answers: OrderedDict[bytes, _Answer], digest: bytes, answer: _Answer, entries_max: int) -> None:
    answers[digest] = answer
    answers.move_to_end(digest)
    if len(answers) > entries_max:
        answers.popitem(last=False)


def _nobody() -> Unauthenticated:
    return Unauthenticated("this key is not known here; it was revoked, or never made", reason="KEY_UNKNOWN")
