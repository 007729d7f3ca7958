"""The certificates and kubeconfigs of a cluster, valid for 30 days."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

LIFETIME = timedelta(days=30)
SERVICE_IP = "10.96.0.1"
_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
)


def write_all(folder: Path, ip: str, node: str, server: str) -> None:
    """Writes the certificates and kubeconfigs of all processes of a cluster.

    Args:
        ip: the address of the API server and of the node.
        node: the name of the node.
        server: the URL of the API server.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    cluster, front = _authority(folder, "ca"), _authority(folder, "front")
    _issue(folder, "apiserver", cluster, "kube-apiserver", hosts=("127.0.0.1", SERVICE_IP, ip, *_NAMES))
    _issue(folder, "kubelet-serving", cluster, f"system:node:{node}", "system:nodes", hosts=(ip, node))
    _issue(folder, "kubelet-client", cluster, "kube-apiserver-kubelet-client")
    _issue(folder, "front-client", front, "front-proxy-client")
    for name, user, group in (
        ("admin", "admin", "system:masters"),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("kubelet", f"system:node:{node}", "system:nodes"),
        ("proxy", "system:kube-proxy", None),
    ):
        _issue(folder, name, cluster, user, group)
        _kubeconfig(folder, name, server)
    accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM
    _write_key(
        folder / "accounts.key",
        accounts.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    (folder / "accounts.pub").write_bytes(
        accounts.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _authority(folder: Path, name: str) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / f"{name}.crt")
    _write_key(folder / f"{name}.key", authority.private_key_pem.bytes())
    return authority


def _issue(
    folder: Path,
    name: str,
    authority: trustme.CA,
    user: str,
    group: str | None = None,
    *,
    hosts: tuple[str, ...] = ("localhost",),
) -> None:
    """Issues a certificate for a user of the cluster, which may be a server with these names and addresses."""
    end = datetime.now(UTC) + LIFETIME
    issued = authority.issue_cert(*hosts, common_name=user, organization_name=group, not_after=end)
    issued.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
    _write_key(folder / f"{name}.key", issued.private_key_pem.bytes())


def _write_key(path: Path, pem: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(pem)


def _kubeconfig(folder: Path, name: str, server: str) -> None:
    def embedded(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "vesta",
        "clusters": [
            {"name": "vesta", "cluster": {"server": server, "certificate-authority-data": embedded("ca.crt")}}
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": embedded(f"{name}.crt"),
                    "client-key-data": embedded(f"{name}.key"),
                },
            }
        ],
        "contexts": [{"name": "vesta", "context": {"cluster": "vesta", "user": name}}],
    }
    path = folder / f"{name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content))
