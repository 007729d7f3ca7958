"""Certificates of a local platform's services, issued by an authority of the home."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vesta_admin.authority import Pair, is_due, issue, new_authority
from vesta_common.identity import CredentialFiles

from vesta_local.home import HOST, write_secret

LIFETIME = timedelta(days=3650)
"""Longer than in a cluster, because certificates are not renewed while the platform runs."""
_HOSTS = ("localhost", HOST)


def files(folder: Path, service: str) -> CredentialFiles:
    """Returns the paths of a service's files."""
    own = folder / service
    return CredentialFiles(own / "tls.crt", own / "tls.key", folder / "ca.crt")


def prepare(folder: Path, names: Iterable[str]) -> None:
    """Creates the authority and a certificate for each name, unless it exists and does not expire soon."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = datetime.now(UTC)
    authority = _read(folder / "ca.crt", folder / "ca.key")
    if authority is None:
        authority = new_authority(now)
        _write(folder / "ca.crt", folder / "ca.key", authority)
    for name in names:
        where = files(folder, name)
        where.certificate.parent.mkdir(mode=0o700, exist_ok=True)
        pair = _read(where.certificate, where.key)
        if pair is None or is_due(pair, now):
            _write(where.certificate, where.key, issue(authority, name, _HOSTS, now, LIFETIME))


def _read(certificate: Path, key: Path) -> Pair | None:
    if not (certificate.exists() and key.exists()):
        return None
    return Pair(certificate.read_bytes(), key.read_bytes())


def _write(certificate: Path, key: Path, pair: Pair) -> None:
    """Writes the key first, then the certificate, so that an interrupted run starts over."""
    write_secret(key, pair.key.decode())
    write_secret(certificate, pair.certificate.decode())
