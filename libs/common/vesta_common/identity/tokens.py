"""Tokens for calls between services: JSON Web Tokens (RFC 7519) with the certificate of the signer (`x5c`, RFC 7515)."""

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from vesta_common.errors import Unauthenticated
from vesta_common.identity.callers import may_assert, project_of_caller
from vesta_common.identity.credentials import (
    CredentialFiles,
    Credentials,
    CredentialsError,
    CredentialSource,
    service_of,
)
from vesta_common.settings import ServiceSettings, environment_name

TOKEN_KEY = "authorization"  # noqa: S105 - the name of a header
"""Metadata key of `Bearer TOKEN`."""
ALGORITHM = "ES256"
LIFETIME = timedelta(seconds=120)
REUSE = LIFETIME / 2
"""How long a token is reused. After that it is valid for at least the same time."""
CLOCK_SKEW_MAX = timedelta(seconds=30)
TOKENS_MAX = 4096
"""Maximum number of cached tokens, for signed and for verified tokens each."""
TOKEN_BYTES_MAX = 4096
_BEARER = "Bearer "
_FIELDS = ("identity_certificate_file", "identity_key_file", "identity_ca_file")
_K = TypeVar("_K")
_REQUIRED = ["iss", "aud", "sub", "role", "project", "iat", "exp"]


@dataclass(frozen=True)
class Claims:
    """The claims of a verified token.

    Attributes:
        service: the calling service, according to its certificate.
        caller: the principal of the call: `projects/acme/members/ada`, `platform/owner` or `services/<service>`.
        role: the member's role in lower case; empty if the call is not on behalf of a member.
        project: `projects/acme`, the only project that the call may access; empty for all.
    """

    service: str
    caller: str
    role: str
    project: str


class _CacheEntry(NamedTuple):
    value: str | Claims
    audience: str
    until: float
    credentials: Credentials


class Identity:
    """Signs the tokens of outgoing calls and verifies the tokens of incoming calls. Thread-safe.

    Attributes:
        has_tls: whether calls from and to the service use TLS.
    """

    def __init__(self, files: CredentialFiles, now: Callable[[], float] = time.time, *, has_tls: bool = False) -> None:
        self.has_tls = has_tls
        self._source = CredentialSource(files)
        self._now = now
        self._signed: dict[tuple[str, str, str], _CacheEntry] = {}
        self._verified: dict[str, _CacheEntry] = {}

    @classmethod
    def of(cls, settings: ServiceSettings, service: str) -> Self:
        """Creates the identity of a service from the files in its settings.

        Raises:
            CredentialsError: the files cannot be used, or belong to another service.
        """
        paths = {field: getattr(settings, field) for field in _FIELDS}
        missing = [environment_name(type(settings), field) for field, path in paths.items() if not path]
        if missing:
            raise CredentialsError(
                f"{', '.join(missing)} required: services authenticate with certificates; set the "
                "paths of the PEM files that `vesta-admin certificates` creates"
            )
        files = CredentialFiles(*map(Path, paths.values()))
        identity = cls(files, has_tls=settings.peer_tls)
        if identity.service != service:
            raise CredentialsError(
                f"{files.certificate} is the certificate of {identity.service}; configure that of {service}"
            )
        return identity

    @property
    def service(self) -> str:
        """The service's own name, according to its certificate."""
        return self._source.current().service

    @property
    def credentials(self) -> Credentials:
        """The current certificate, private key and certificate authorities."""
        return self._source.current()

    def metadata(self, audience: str, caller: str = "", role: str = "") -> tuple[str, str]:
        """Returns the metadata for a call to a service.

        Args:
            audience: the name of the called service.
            caller: the principal of the call; empty for this service itself.
            role: the member's role. Omitted from the token if this service may not assert it; the call is then made as the service.
        """
        credentials, now = self._source.current(), self._now()
        caller = caller or f"services/{credentials.service}"
        role = role if may_assert(credentials.service, role) else ""
        entry = self._signed.get((audience, caller, role))
        if entry is None or entry.until < now or entry.credentials is not credentials:
            token = sign(credentials, audience, caller, role, now)
            entry = _CacheEntry(token, audience, now + REUSE.total_seconds(), credentials)
            _keep(self._signed, (audience, caller, role), entry)
        return TOKEN_KEY, f"{_BEARER}{entry.value}"

    def verify(self, metadata: Mapping[str, str], audience: str) -> Claims:
        """Verifies the token in the metadata of a call and returns its claims.

        Args:
            audience: the name of the called service.

        Raises:
            Unauthenticated: TOKEN_MISSING, TOKEN_INVALID.
        """
        header = metadata.get(TOKEN_KEY, "")
        if not header.startswith(_BEARER):
            raise Unauthenticated(
                "this call has no service token; clients must call the gateway",
                reason="TOKEN_MISSING",
            )
        token, credentials, now = header.removeprefix(_BEARER), self._source.current(), self._now()
        entry = self._verified.get(token)
        if entry and entry.audience == audience and entry.until > now and entry.credentials is credentials:
            assert isinstance(entry.value, Claims)
            return entry.value
        claims, until = verify(token, audience, credentials.authorities, now)
        _keep(self._verified, token, _CacheEntry(claims, audience, until, credentials))
        return claims


def sign(credentials: Credentials, audience: str, caller: str, role: str, now: float) -> str:
    """Creates a token that expires `LIFETIME` after `now`, in seconds since the epoch."""
    certificate = credentials.certificate.public_bytes(serialization.Encoding.DER)
    claims = {
        "iss": credentials.service,
        "aud": audience,
        "sub": caller,
        "role": role,
        "project": project_of_caller(caller),
        "iat": int(now),
        "exp": int(now + LIFETIME.total_seconds()),
    }
    return jwt.encode(claims, credentials.key, ALGORITHM, headers={"x5c": [base64.b64encode(certificate).decode()]})


def verify(token: str, audience: str, authorities: tuple[x509.Certificate, ...], now: float) -> tuple[Claims, float]:
    """Verifies a token. Returns its claims and its expiry in seconds since the epoch.

    Raises:
        Unauthenticated: TOKEN_INVALID.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise _invalid(f"more than {TOKEN_BYTES_MAX} bytes")
    try:
        certificate = _certificate_of(token)
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise _invalid("its certificate has no ECDSA key")
        payload = jwt.decode(
            token,
            key,
            [ALGORITHM],
            audience=audience,
            options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False, "strict_aud": True},
        )
        _check_certificate(certificate, authorities, now)
    except jwt.InvalidTokenError as error:
        raise _invalid(str(error)) from error
    except VerificationError as error:
        raise _invalid("its certificate is expired, or not issued by this platform") from error
    service = service_of(certificate)
    if not service or payload["iss"] != service:
        raise _invalid("its issuer does not match its certificate")
    texts = [payload["sub"], payload["role"], payload["project"]]
    if not all(isinstance(text, str) for text in texts) or payload["project"] != project_of_caller(payload["sub"]):
        raise _invalid("its caller, role and project are inconsistent")
    return Claims(service, *texts), _expiry_of(payload, now)


def _certificate_of(token: str) -> x509.Certificate:
    try:
        chain = jwt.get_unverified_header(token)["x5c"]
        return x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
    except (KeyError, IndexError, TypeError, ValueError, binascii.Error) as error:
        raise _invalid("it contains no certificate") from error


def _check_certificate(certificate: x509.Certificate, authorities: tuple[x509.Certificate, ...], now: float) -> None:
    moment = datetime.fromtimestamp(now, UTC)
    PolicyBuilder().store(Store(list(authorities))).time(moment).build_client_verifier().verify(certificate, [])


def _expiry_of(payload: Mapping[str, object], now: float) -> float:
    """Checks the times of a token and returns its expiry. PyJWT does not check them, because the clock is passed in."""
    issued, ends, skew = payload["iat"], payload["exp"], CLOCK_SKEW_MAX.total_seconds()
    if not isinstance(issued, int) or not isinstance(ends, int) or ends - issued > LIFETIME.total_seconds():
        raise _invalid(f"its lifetime is longer than {int(LIFETIME.total_seconds())} s")
    if ends + skew <= now:
        raise _invalid(f"it expired {int(now - ends)} s ago; check that the clocks of both machines are synchronized")
    if issued - skew > now:
        raise _invalid(
            f"it is valid only in {int(issued - now)} s; check that the clocks of both machines are synchronized"
        )
    return ends + skew


def _invalid(why: str) -> Unauthenticated:
    return Unauthenticated(f"the token of this call is invalid: {why}", reason="TOKEN_INVALID")


def _keep(cache: dict[_K, _CacheEntry], key: _K, entry: _CacheEntry) -> None:
    if len(cache) >= TOKENS_MAX:
        cache.clear()
    cache[key] = entry
