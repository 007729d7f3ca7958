"""Which deployments wait after a failure, so that one that cannot answer holds up no other."""

from datetime import datetime, timedelta

PENALTY_FIRST = timedelta(seconds=1)
PENALTY_MAX = timedelta(minutes=5)


def penalty(failures: int) -> timedelta:
    """How long to wait after so many failures in a row, the first being 1."""
    factor: int = 2 ** min(failures - 1, 16)
    return min(PENALTY_FIRST * factor, PENALTY_MAX)


class Penalties:
    """The deployments that failed of late. Of one worker: others find out for themselves."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._until: dict[str, datetime] = {}

    def failed(self, deployment: str, now: datetime) -> None:
        """Lets a deployment wait, the longer the oftener it failed."""
        self._failures[deployment] = self._failures.get(deployment, 0) + 1
        self._until[deployment] = now + penalty(self._failures[deployment])

    def succeeded(self, deployment: str) -> None:
        """Forgets its failures."""
        self._failures.pop(deployment, None)
        self._until.pop(deployment, None)

    def waiting(self, now: datetime) -> list[str]:
        """Those that are not to be asked just now."""
        return [deployment for deployment, until in self._until.items() if until > now]
