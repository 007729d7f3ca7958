"""The certificates and kubeconfigs of a cluster, valid for 30 days."""

import base64
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=30)
SERVICE_IP = "10.96.0.1"
_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


@dataclass(frozen=True)
class Authority:
    """A certificate authority with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def write_all(folder: Path, ip: str, node: str, server: str) -> None:
    """Writes what every process of a cluster needs.

    Args:
        ip: of the API server and of the node.
        node: the node's name.
        server: the API server's URL.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    cluster, front = _authority(folder, "ca", "kubernetes-ca"), _authority(folder, "front", "front-proxy-ca")
    _issue(
        folder, "apiserver", cluster, "kube-apiserver", ips=("127.0.0.1", SERVICE_IP, ip), names=(*_NAMES, "localhost")
    )
    _issue(folder, "kubelet-serving", cluster, f"system:node:{node}", "system:nodes", ips=(ip,), names=(node,))
    _issue(folder, "kubelet-client", cluster, "kube-apiserver-kubelet-client")
    _issue(folder, "front-client", front, "front-proxy-client")
    for name, user, group in (
        ("admin", "admin", "system:masters"),
        ("controller-manager", "system:kube-controller-manager", ""),
        ("scheduler", "system:kube-scheduler", ""),
        ("kubelet", f"system:node:{node}", "system:nodes"),
        ("proxy", "system:kube-proxy", ""),
    ):
        _issue(folder, name, cluster, user, group)
        _kubeconfig(folder, name, server)
    accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write_key(folder / "accounts.key", accounts)
    (folder / "accounts.pub").write_bytes(
        accounts.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _authority(folder: Path, name: str, common_name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(subject, subject, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_usage(is_authority=True), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    _write(folder, name, certificate, key)
    return Authority(certificate, key)


def _issue(
    folder: Path,
    name: str,
    authority: Authority,
    common_name: str,
    organization: str = "",
    *,
    ips: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
) -> None:
    """A certificate of a client, or of a server where it is given addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(subject, authority.certificate.subject, key)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if ips else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    builder = builder.add_extension(_usage(is_authority=False), critical=True)
    if ips:
        names_and_addresses = [
            *map(x509.DNSName, names),
            *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in dict.fromkeys(ips)),
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names_and_addresses), critical=False)
    _write(folder, name, builder.sign(authority.key, hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_key(folder / f"{name}.key", key)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


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
