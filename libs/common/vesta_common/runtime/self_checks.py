"""Checks of a service's own resources: the folders it writes to and the certificates it presents."""

import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from vesta_common.runtime.engine_watch import EngineCheck, ExplainedError
from vesta_common.settings import EngineSettings, environment_name

_WRITTEN_BYTES = 64 * 1024
IDENTITY = "this service's certificate"
_CERTIFICATES = ("kafka_certificate_file", "tls_certificate")
"""Settings with certificate files, other than the identity certificate."""


def self_checks_of(settings: EngineSettings, identity: Callable[[], x509.Certificate]) -> dict[str, EngineCheck]:
    """Returns a check for each folder that the service writes to and for each certificate.

    Args:
        identity: returns the current identity certificate.
    """
    checks: dict[str, EngineCheck] = {
        IDENTITY: lambda: _check_certificates([identity()], "`vesta-admin certificates` renews it")
    }
    for field in _CERTIFICATES:
        path = getattr(settings, field, None)
        if path:
            name = environment_name(type(settings), field)
            checks[f"the certificate of {name}"] = _check_of_file(Path(path))
    work_folder = getattr(settings, "work_folder", None)
    for folder in {Path(tempfile.gettempdir()), *([Path(work_folder)] if work_folder else ())}:
        checks[f"the folder {folder}"] = _check_of_folder(folder)
    return checks


def _check_of_file(path: Path) -> EngineCheck:
    def attempt() -> None:
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ExplainedError(f"cannot be read ({error}); mount a PEM file at its path") from error
        _check_certificates(certificates[:1], "renew it, and restart this service")

    return attempt


def _check_certificates(certificates: Iterable[x509.Certificate], fix: str) -> None:
    for certificate in certificates:
        end = certificate.not_valid_after_utc
        if end <= datetime.now(UTC):
            raise ExplainedError(f"expired on {end:%Y-%m-%d %H:%M} UTC; {fix}")


def _check_of_folder(folder: Path) -> EngineCheck:
    def attempt() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                file.write(bytes(_WRITTEN_BYTES))
        except OSError as error:
            raise ExplainedError(
                f"is not writable ({error.strerror}); free space, or enlarge it (`tmpSize` and `workSize` in the chart)"
            ) from error

    return attempt
