"""Tokens of calls between services: JSON Web Tokens (RFC 7519) that carry the certificate of their signer (`x5c`, RFC 7515)."""

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
"""The metadata that carries `Bearer TOKEN`."""
ALGORITHM = "ES256"
LIFETIME = timedelta(seconds=120)
REUSE = LIFETIME / 2
"""For how long a token is used again; then it has at least as long to live."""
CLOCK_SKEW_MAX = timedelta(seconds=30)
TOKENS_MAX = 4096
"""Tokens that are kept, of our own and of others."""
TOKEN_BYTES_MAX = 4096
_BEARER = "Bearer "
_FIELDS = ("identity_certificate_file", "identity_key_file", "identity_ca_file")
_K = TypeVar("_K")
_REQUIRED = ["iss", "aud", "sub", "role", "project", "iat", "exp"]


@dataclass(frozen=True)
class Claims:
    """What a verified token says.

    Attributes:
        service: which service calls, by its certificate.
        caller: on whose behalf: `projects/acme/members/ada`, `platform/owner` or `services/<word>`.
        role: the member's, lower-case; empty where no member stands behind the call.
        project: `projects/acme`, the only project that the call may be about; any if empty.
    """

    service: str
    caller: str
    role: str
    project: str


class _Kept(NamedTuple):
    value: str | Claims
    audience: str
    until: float
    credentials: Credentials


class Identity:
    """Signs what a service sends to others, and verifies what others send to it. Safe to share between threads.

    Attributes:
        has_tls: whether calls from and to the service go over TLS.
    """

    def __init__(self, files: CredentialFiles, now: Callable[[], float] = time.time, *, has_tls: bool = False) -> None:
        self.has_tls = has_tls
        self._source = CredentialSource(files)
        self._now = now
        self._signed: dict[tuple[str, str, str], _Kept] = {}
        self._verified: dict[str, _Kept] = {}

    @classmethod
    def of(cls, settings: ServiceSettings, service: str) -> Self:
        """The identity of a service, from the files that its settings name.

        Raises:
            CredentialsError: they cannot be used, or are another service's.
        """
        paths = {field: getattr(settings, field) for field in _FIELDS}
        missing = [environment_name(type(settings), field) for field, path in paths.items() if not path]
        if missing:
            raise CredentialsError(
                f"{', '.join(missing)}: services call each other by certificates; name the PEM files that "
                "`vesta-admin certificates` makes"
            )
        files = CredentialFiles(*map(Path, paths.values()))
        identity = cls(files, has_tls=settings.peer_tls)
        if identity.service != service:
            raise CredentialsError(
                f"{files.certificate} is the certificate of {identity.service}; wanted is that of {service}"
            )
        return identity

    @property
    def service(self) -> str:
        """Our own word, as the certificate has it."""
        return self._source.current().service

    @property
    def credentials(self) -> Credentials:
        """The certificate, the key and the authorities, as they are now."""
        return self._source.current()

    def metadata(self, audience: str, caller: str = "", role: str = "") -> tuple[str, str]:
        """The metadata that a call to a service needs.

        Args:
            audience: the word of the service that is called.
            caller: on whose behalf; our own where it is empty.
            role: left out where this service may not assert it: then the call is that of a service.
        """
        credentials, now = self._source.current(), self._now()
        caller = caller or f"services/{credentials.service}"
        role = role if may_assert(credentials.service, role) else ""
        kept = self._signed.get((audience, caller, role))
        if kept is None or kept.until < now or kept.credentials is not credentials:
            token = sign(credentials, audience, caller, role, now)
            kept = _Kept(token, audience, now + REUSE.total_seconds(), credentials)
            _keep(self._signed, (audience, caller, role), kept)
        return TOKEN_KEY, f"{_BEARER}{kept.value}"

    def verify(self, metadata: Mapping[str, str], audience: str) -> Claims:
        """Who calls, by the metadata of the call.

        Args:
            audience: the word of the service that is called.

        Raises:
            Unauthenticated: TOKEN_MISSING, TOKEN_INVALID.
        """
        header = metadata.get(TOKEN_KEY, "")
        if not header.startswith(_BEARER):
            raise Unauthenticated(
                "this call has no token; services are called by services, and everybody else calls the gateway",
                reason="TOKEN_MISSING",
            )
        token, credentials, now = header.removeprefix(_BEARER), self._source.current(), self._now()
        kept = self._verified.get(token)
        if kept and kept.audience == audience and kept.until > now and kept.credentials is credentials:
            assert isinstance(kept.value, Claims)
            return kept.value
        claims, until = verify(token, audience, credentials.authorities, now)
        _keep(self._verified, token, _Kept(claims, audience, until, credentials))
        return claims


def sign(credentials: Credentials, audience: str, caller: str, role: str, now: float) -> str:
    """A token that ends `LIFETIME` after `now`, in seconds since the epoch."""
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
    """What a token says, and until when it may be believed, in seconds since the epoch.

    Raises:
        Unauthenticated: TOKEN_INVALID.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise _invalid(f"it has more than {TOKEN_BYTES_MAX} bytes")
    try:
        certificate = _certificate_of(token)
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise _invalid("its certificate has no key for ECDSA")
        told = jwt.decode(
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
        raise _invalid("its certificate is not, or no longer, one of this platform") from error
    service = service_of(certificate)
    if not service or told["iss"] != service:
        raise _invalid("its issuer is not the service of its certificate")
    texts = [told["sub"], told["role"], told["project"]]
    if not all(isinstance(text, str) for text in texts) or told["project"] != project_of_caller(told["sub"]):
        raise _invalid("its caller, role and project do not agree")
    return Claims(service, *texts), _until(told, now)


def _certificate_of(token: str) -> x509.Certificate:
    try:
        chain = jwt.get_unverified_header(token)["x5c"]
        return x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
    except (KeyError, IndexError, TypeError, ValueError, binascii.Error) as error:
        raise _invalid("it carries no certificate") from error


def _check_certificate(certificate: x509.Certificate, authorities: tuple[x509.Certificate, ...], now: float) -> None:
    moment = datetime.fromtimestamp(now, UTC)
    PolicyBuilder().store(Store(list(authorities))).time(moment).build_client_verifier().verify(certificate, [])


def _until(told: Mapping[str, object], now: float) -> float:
    """When the token ends. Its times are ours to check, for the clock is passed in."""
    issued, ends, skew = told["iat"], told["exp"], CLOCK_SKEW_MAX.total_seconds()
    if not isinstance(issued, int) or not isinstance(ends, int) or ends - issued > LIFETIME.total_seconds():
        raise _invalid(f"it lives longer than {int(LIFETIME.total_seconds())} s")
    if ends + skew <= now:
        raise _invalid(f"it ended {int(now - ends)} s ago; do the clocks of the two machines agree?")
    if issued - skew > now:
        raise _invalid(f"it begins {int(issued - now)} s from now; do the clocks of the two machines agree?")
    return ends + skew


def _invalid(why: str) -> Unauthenticated:
    return Unauthenticated(f"the token of this call is not valid: {why}", reason="TOKEN_INVALID")


def _keep(kept: dict[_K, _Kept], key: _K, entry: _Kept) -> None:
    if len(kept) >= TOKENS_MAX:
        kept.clear()
    kept[key] = entry
