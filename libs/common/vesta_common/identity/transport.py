"""TLS between services, with the certificates that are their identities. The tokens prove who calls, so clients show no certificate."""

import grpc

from vesta_common.identity.credentials import Credentials
from vesta_common.identity.tokens import Identity


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials:
    """Those of a client, which holds a server's certificate to the platform's authorities and to the name it was called by."""
    return grpc.ssl_channel_credentials(identity.credentials.authorities_pem)


def server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """Those of a server; each handshake takes the certificate as it is then."""
    used = identity.credentials

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        current = identity.credentials
        if current is used:
            return None
        used = current
        return _configuration(current)

    # A fetcher answers None where nothing has changed; the type stubs do not say so.
    return grpc.dynamic_ssl_server_credentials(_configuration(used), renewed)  # type: ignore[arg-type]


def _configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(credentials.key_pem, credentials.certificate_pem)])
