"""Determines why a server's certificate is rejected. The clients of the engines do not always report it."""

import socket
import ssl
from datetime import timedelta

TIMEOUT = timedelta(seconds=5)
# https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest: length 8, code 80877103
_POSTGRES_TLS_REQUEST = bytes([0, 0, 0, 8, 4, 210, 22, 47])


def tls_failure(host: str, port: int, ca_file: str, *, is_postgres: bool = False) -> str:
    """Returns the reason, such as "certificate has expired"; empty if the certificate is valid or the server does not respond.

    Args:
        ca_file: PEM file of the certificate authorities; empty for the system's default.
        is_postgres: whether to send PostgreSQL's SSLRequest before the TLS handshake.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        context.check_hostname = False
        with socket.create_connection((host, port), TIMEOUT.total_seconds()) as plain:
            if is_postgres:
                plain.sendall(_POSTGRES_TLS_REQUEST)
                if plain.recv(1) != b"S":
                    return ""
            context.wrap_socket(plain).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:
        return ""
    return ""
