"""Service identity: each call between services has a short-lived token, signed by the client and verified by the server.

The identity of a service is a certificate issued by the platform's certificate authority. The same certificate is used for TLS.
"""

from vesta_common.identity.callers import PEERS, audience_of
from vesta_common.identity.credentials import CredentialFiles, Credentials, CredentialsError
from vesta_common.identity.tokens import TOKEN_KEY, Claims, Identity

__all__ = [
    "PEERS",
    "TOKEN_KEY",
    "Claims",
    "CredentialFiles",
    "Credentials",
    "CredentialsError",
    "Identity",
    "audience_of",
]
