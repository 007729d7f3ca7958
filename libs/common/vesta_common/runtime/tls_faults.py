"""Why the certificate of a server is refused, which clients of engines do not always say."""

import socket
import ssl
from datetime import timedelta

TIMEOUT = timedelta(seconds=5)
# https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest: length 8, code 80877103
_POSTGRES_TLS_REQUEST = bytes([0, 0, 0, 8, 4, 210, 22, 47])


def why_refused(host: str, port: int, ca_file: str, *, is_postgres: bool = False) -> str:
    """Such as "certificate has expired"; empty where the certificate is accepted, or the server does not answer.

    Args:
        ca_file: PEM file of the authorities; the system's if empty.
        is_postgres: whether TLS is to be asked for in PostgreSQL's way first.
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
