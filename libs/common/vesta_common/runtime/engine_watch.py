"""Monitors the engines of a service. Readiness, logs and `vesta status` report failures with a suggested fix.

A failing engine makes the service unready (health without a name) but not dead (health name `live`), so that an engine outage causes no
restarts. Each check opens a new connection, which detects expired certificates and changed passwords that existing connections do not.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog

INTERVAL = timedelta(seconds=10)
INTERVAL_FAILING = timedelta(seconds=5)
"""A check takes about 10 ms of processor time here and in the engine, so an engine without problems is checked less often."""
CHECK_TIMEOUT = timedelta(seconds=20)
"""A check that takes longer counts as failed, so a failure is reported within 30 seconds."""
POSTGRES, OBJECTS, KAFKA, TRITON = "PostgreSQL", "the object store", "Kafka", "Triton"
_SETTINGS = {
    POSTGRES: "POSTGRES_URL, POSTGRES_PASSWORD",
    OBJECTS: "S3_ENDPOINT_URL, S3_ACCESS_KEY, S3_SECRET_KEY, S3_BUCKET",
    KAFKA: "KAFKA_BOOTSTRAP, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD",
    TRITON: "TRITON_ADDRESS",
}
_NOT_CHECKED = "has not been checked yet"

log = structlog.get_logger()

EngineCheck = Callable[[], None]


class ExplainedError(RuntimeError):
    """A failure with an explanation. The message follows the name of the engine: what is wrong, and a suggested fix."""


@dataclass(frozen=True)
class Symptom:
    """A known kind of failure, recognised by substrings of the lower-case error message."""

    words: tuple[str, ...]
    what: str
    fix: str


# The first entry with a matching substring applies.
_SYMPTOMS = (
    Symptom(("certificate has expired", "certificate expired"), "has an expired certificate", "renew the certificate"),
    Symptom(
        ("certificate",), "has a certificate that is not trusted", "check the authorities (sslrootcert, …_CA_FILE)"
    ),
    Symptom(
        ("password authentication failed", "no password supplied", "sasl"),
        "rejects the password",
        "check {settings}",
    ),
    Symptom(("does not exist",), "is not set up", "run `vesta-admin setup`"),
    Symptom(
        ("denies access", "permission denied", "authorizationfailed"),
        "rejects the credentials",
        "check {settings} and the permissions of their user",
    ),
    Symptom(
        ("no space left", "storage is full", "could not extend file"),
        "has no free disk space",
        "free disk space or enlarge its disk",
    ),
    Symptom(
        ("too many clients", "connection slots", "too many connections"),
        "has no free connections",
        "raise its max_connections, or lower POSTGRES_CONNECTIONS_MAX or the number of replicas",
    ),
    Symptom(
        ("starting up", "recovery mode", "shutting down"),
        "is starting or recovering",
        "wait; if it lasts, see its log: its disk may be full",
    ),
)


def describe_failure(engine: str, error: Exception) -> str:
    """Describes a failure in one sentence for operators, without addresses: the engine, what is wrong, and a suggested fix."""
    if isinstance(error, ExplainedError):
        return f"{engine} {error}"
    settings = _SETTINGS.get(engine, "its address")
    text = str(error).lower()
    for symptom in _SYMPTOMS:
        if any(word in text for word in symptom.words):
            return f"{engine} {symptom.what}; {symptom.fix.format(settings=settings)}"
    return f"{engine} does not respond; check that it is running, and {settings}"


class EngineWatch:
    """Checks each engine, and other dependencies of a service, each in its own thread: every ten seconds, or five after a failure.

    Args:
        checks: checks by engine; each raises an exception if the engine cannot be used.
        interval: pause after a successful check.
        interval_failing: pause after a failed check.
        timeout: maximum duration of a check.
    """

    def __init__(
        self,
        checks: Mapping[str, EngineCheck],
        interval: timedelta = INTERVAL,
        timeout: timedelta = CHECK_TIMEOUT,
        interval_failing: timedelta = INTERVAL_FAILING,
    ) -> None:
        self._problems = {engine: f"{engine} {_NOT_CHECKED}" for engine in checks}
        self._starts: dict[str, float] = {}  # running checks with their start on the monotonic clock
        self._interval = interval
        self._interval_failing = min(interval, interval_failing)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=pair, name=f"watch {pair[0]}", daemon=True)
            for pair in checks.items()
        ]

    def start(self) -> None:
        """Starts the check threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stops checking. Does not wait for running checks."""
        self._stopping.set()

    def problems(self) -> list[str]:
        """Returns the current problems, at most one sentence per engine."""
        for engine, start in self._starts.copy().items():
            if time.monotonic() - start > self._timeout.total_seconds():
                self._record(engine, TimeoutError(f"a check takes longer than {self._timeout.total_seconds():g} s"))
        return [problem for problem in tuple(self._problems.values()) if problem]

    def _watch(self, engine: str, attempt: EngineCheck) -> None:
        while not self._stopping.is_set():
            self._starts[engine] = time.monotonic()
            failure: Exception | None = None
            try:
                attempt()
            except Exception as error:  # noqa: BLE001 - any error means that the engine cannot be used
                failure = error
            del self._starts[engine]
            self._record(engine, failure)
            self._stopping.wait((self._interval_failing if failure else self._interval).total_seconds())

    def _record(self, engine: str, failure: Exception | None) -> None:
        """Stores the result of a check. Logs it if it differs from the previous one."""
        with self._lock:
            before, problem = self._problems[engine], describe_failure(engine, failure) if failure else ""
            self._problems[engine] = problem
        if problem and problem != before:
            log.warning("engine_check_failed", engine=engine, problem=problem, error=str(failure).strip())
        elif before and not problem and not before.endswith(_NOT_CHECKED):
            log.info("engine_check_recovered", engine=engine)
