"""TLS between services with their identity certificates. Tokens authenticate the client, so clients present no certificate."""

import grpc

from vesta_common.identity.credentials import Credentials
from vesta_common.identity.tokens import Identity


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials:
    """Returns client credentials that verify the server's certificate against the platform's authorities and the called host name."""
    return grpc.ssl_channel_credentials(identity.credentials.authorities_pem)


def server_credentials(identity: Identity) -> grpc.ServerCredentials:
    """Returns server credentials. Each TLS handshake uses the current certificate."""
    used = identity.credentials

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        current = identity.credentials
        if current is used:
            return None
        used = current
        return _configuration(current)

    # The fetcher returns None if nothing has changed. The type stubs do not allow it.
    return grpc.dynamic_ssl_server_credentials(_configuration(used), renewed)  # type: ignore[arg-type]


def _configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(credentials.key_pem, credentials.certificate_pem)])
