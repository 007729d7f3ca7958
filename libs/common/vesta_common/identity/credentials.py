"""A service's certificate, private key and trusted certificate authorities: PEM files that are reloaded when they change."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ID_PREFIX = "spiffe://vesta/"
"""Prefix of the service name in the certificate, a URI in the subject alternative names."""
LOOK_SECONDS = 1.0
"""Minimum interval between checks for changed files."""

log = structlog.get_logger()


class CredentialsError(Exception):
    """The files cannot be used. The message names the file and the requirement."""


@dataclass(frozen=True)
class CredentialFiles:
    """Paths of the PEM files. Kubernetes names them `tls.crt`, `tls.key` and `ca.crt`."""

    certificate: Path
    key: Path
    authorities: Path


@dataclass(frozen=True)
class Credentials:
    """The content of the credential files.

    Attributes:
        service: the service name in the certificate.
        certificate_pem: the certificate chain as in the file, for TLS.
    """

    service: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    authorities: tuple[x509.Certificate, ...]
    certificate_pem: bytes
    key_pem: bytes
    authorities_pem: bytes


class CredentialSource:
    """The current content of the credential files. Thread-safe.

    Raises:
        CredentialsError: on creation, if the files cannot be used. If a later reload fails, the last valid credentials stay in use and a
            warning is logged.
    """

    def __init__(self, files: CredentialFiles, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._stamp = _stamp(files)
        self._current = read_credentials(files)
        self._next_look = monotonic() + LOOK_SECONDS

    def current(self) -> Credentials:
        """Returns the current credentials."""
        if self._monotonic() < self._next_look:
            return self._current
        with self._lock:
            self._next_look = self._monotonic() + LOOK_SECONDS
            try:
                stamp = _stamp(self._files)
                if stamp != self._stamp:
                    self._current = read_credentials(self._files)
                    self._stamp = stamp
                    log.info(
                        "credentials_renewed", expire_time=self._current.certificate.not_valid_after_utc.isoformat()
                    )
            except CredentialsError as error:
                log.warning("credentials_reload_failed", error=str(error))
            return self._current


def read_credentials(files: CredentialFiles) -> Credentials:
    """Reads the credential files.

    Raises:
        CredentialsError: a file cannot be read, or the files do not match.
    """
    certificate_pem, key_pem, authorities_pem = _read(files.certificate), _read(files.key), _read(files.authorities)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        authorities = tuple(x509.load_pem_x509_certificates(authorities_pem))
        key = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CredentialsError(
            f"{files.certificate}, {files.key} and {files.authorities} must be PEM files: {error}"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CredentialsError(
            f"{files.key} must be an ECDSA key on the curve P-256; `vesta-admin certificates` creates one"
        )
    if key.public_key() != certificate.public_key():
        raise CredentialsError(f"{files.key} does not match {files.certificate}; renew both together")
    service = service_of(certificate)
    if not service:
        raise CredentialsError(
            f"{files.certificate} has no service name; add the URI {ID_PREFIX}SERVICE to its subject alternative names"
        )
    return Credentials(service, certificate, key, authorities, certificate_pem, key_pem, authorities_pem)


def service_of(certificate: x509.Certificate) -> str:
    """Returns the service that a certificate was issued for; empty if there is none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    ids = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(ID_PREFIX)]
    return ids[0].removeprefix(ID_PREFIX) if len(ids) == 1 else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(
            f"{path} cannot be read: {error.strerror}; `vesta-admin certificates` creates such files"
        ) from error


def _stamp(files: CredentialFiles) -> tuple[tuple[int, int, int], ...]:
    """Returns a fingerprint that changes whenever a file changes, also if a symbolic link to it is replaced."""
    stamps = []
    for path in (files.certificate, files.key, files.authorities):
        try:
            status = path.stat()
        except OSError as error:
            raise CredentialsError(
                f"{path} cannot be read: {error.strerror}; `vesta-admin certificates` creates such files"
            ) from error
        stamps.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(stamps)
