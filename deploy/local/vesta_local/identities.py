"""Certificates of the services of a local platform, issued by a certificate authority in its home folder."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vesta_admin.authority import KeyPair, issue, needs_renewal, new_authority
from vesta_common.identity import CredentialFiles

from vesta_local.ports import HOST
from vesta_local.secret_files import write_secret

LIFETIME = timedelta(days=3650)
"""Longer than in a cluster, because certificates are not renewed while the platform runs."""
_HOSTS = ("localhost", HOST)


def credential_files(folder: Path, service: str) -> CredentialFiles:
    """Returns the paths of the certificate and key of a service, and of the authority."""
    own = folder / service
    return CredentialFiles(own / "tls.crt", own / "tls.key", folder / "ca.crt")


def prepare(folder: Path, names: Iterable[str]) -> None:
    """Creates the authority if it is missing, and a certificate for each service whose certificate is missing or needs renewal."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = datetime.now(UTC)
    authority = _read(folder / "ca.crt", folder / "ca.key")
    if authority is None:
        authority = new_authority(now)
        _write(folder / "ca.crt", folder / "ca.key", authority)
    for name in names:
        credentials = credential_files(folder, name)
        credentials.certificate.parent.mkdir(mode=0o700, exist_ok=True)
        pair = _read(credentials.certificate, credentials.key)
        if pair is None or needs_renewal(pair, now):
            _write(credentials.certificate, credentials.key, issue(authority, name, _HOSTS, now, LIFETIME))


def _read(certificate: Path, key: Path) -> KeyPair | None:
    if not (certificate.exists() and key.exists()):
        return None
    return KeyPair(certificate.read_bytes(), key.read_bytes())


def _write(certificate: Path, key: Path, pair: KeyPair) -> None:
    """Writes the key first, then the certificate, so that an interrupted run starts over."""
    write_secret(key, pair.key.decode())
    write_secret(certificate, pair.certificate.decode())
