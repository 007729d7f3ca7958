"""Service identity: each call between services carries a short-lived token, signed by the caller and verified by the callee.

The identity of a service is a certificate that the platform's own authority issued for it; the same certificate serves TLS.
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
