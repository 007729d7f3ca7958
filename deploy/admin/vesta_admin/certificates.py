"""Stores the certificates of the services in Secrets of a namespace: creates missing ones, and renews them before they expire."""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from vesta_common.identity import PEERS

from vesta_admin.authority import KeyPair, issue, needs_renewal, new_authority

AUTHORITY = "identity-authority"
"""The Secret with the authority's certificate and key. No pod of a service mounts it."""
_CERTIFICATE, _KEY, _AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
_NOT_FOUND = 404


def secret_of(service: str) -> str:
    """Returns the name of the Secret with a service's certificate and key."""
    return f"identity-{service}"


def hosts_of(service: str, namespace: str) -> list[str]:
    """Returns the names under which other pods reach a service."""
    return [service, f"{service}.{namespace}", f"{service}.{namespace}.svc", "localhost", "127.0.0.1"]


def renew_secrets(namespace: str, labels: Mapping[str, str]) -> list[str]:
    """Creates and renews the certificates of all services, with the permissions of the pod that it runs in.

    Args:
        labels: for the Secrets that it creates.

    Returns:
        A description of each Secret that was written.

    Raises:
        ApiException: the API server rejected a request.
    """
    config.load_incluster_config()
    return renew(Secrets(client.CoreV1Api(), namespace, labels), list(PEERS), namespace, datetime.now(UTC))


class Secrets:
    """Secrets of type `kubernetes.io/tls` in one namespace."""

    def __init__(self, api: client.CoreV1Api, namespace: str, labels: Mapping[str, str]) -> None:
        self._api = api
        self._namespace = namespace
        self._labels = dict(labels)

    def find(self, name: str) -> dict[str, bytes]:
        """Returns the data of a Secret; empty if it does not exist."""
        try:
            data = self._api.read_namespaced_secret(name, self._namespace).data or {}
        except ApiException as error:
            if error.status != _NOT_FOUND:
                raise
            return {}
        return {key: base64.b64decode(value) for key, value in data.items()}

    def put(self, name: str, data: Mapping[str, bytes]) -> None:
        """Creates a Secret, or replaces its data."""
        body = client.V1Secret(
            metadata=client.V1ObjectMeta(name=name, labels=self._labels),
            type="kubernetes.io/tls",
            data={key: base64.b64encode(value).decode() for key, value in data.items()},
        )
        if self.find(name):
            self._api.replace_namespaced_secret(name, self._namespace, body)
        else:
            self._api.create_namespaced_secret(self._namespace, body)


def renew(secrets: Secrets, services: Sequence[str], namespace: str, now: datetime) -> list[str]:
    """Creates and renews the certificates of these services. Replaces a certificate that another authority issued."""
    done = []
    authority = _pair(secrets.find(AUTHORITY))
    if authority is None:
        authority = new_authority(now)
        secrets.put(AUTHORITY, {_CERTIFICATE: authority.certificate, _KEY: authority.key})
        done.append(f"secret {AUTHORITY}")
    for service in services:
        stored = secrets.find(secret_of(service))
        pair = _pair(stored)
        if pair is None or needs_renewal(pair, now) or stored.get(_AUTHORITIES) != authority.certificate:
            pair = issue(authority, service, hosts_of(service, namespace), now)
            data = {_CERTIFICATE: pair.certificate, _KEY: pair.key, _AUTHORITIES: authority.certificate}
            secrets.put(secret_of(service), data)
            done.append(f"secret {secret_of(service)}")
    return done


def _pair(stored: Mapping[str, bytes]) -> KeyPair | None:
    return KeyPair(stored[_CERTIFICATE], stored[_KEY]) if _CERTIFICATE in stored and _KEY in stored else None
