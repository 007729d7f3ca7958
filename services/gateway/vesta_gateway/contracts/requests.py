"""Requests as they are forwarded: a message for checks, and its serialized form."""

from typing import NamedTuple

from google.protobuf.message import DecodeError, Message
from vesta_common.errors import InvalidArgument
from vesta_common.rpc.outline import find_outline

from vesta_gateway.contracts.methods import Rpc


class Request(NamedTuple):
    """A request to a service.

    Attributes:
        message: the request, or its outline without large files (`vesta_common.rpc.outline`), for checks.
        raw: the serialized request, if `message` is an outline.
    """

    message: Message
    raw: bytes | None = None

    def serialized(self) -> bytes:
        """Returns the serialized request, with the entries of maps sorted."""
        return self.message.SerializeToString(deterministic=True) if self.raw is None else self.raw


def read_message(rpc: Rpc, raw: bytes) -> Request:
    """Parses a request. Unknown fields are discarded, so that nothing unchecked is forwarded. A large file is not copied.

    Raises:
        InvalidArgument: BODY_MALFORMED.
    """
    outline = find_outline(rpc.request_type, raw)
    if outline is not None:
        return Request(outline.message, raw)
    message = rpc.request_type()
    try:
        message.MergeFromString(raw)
    except DecodeError as error:
        raise InvalidArgument(
            f"the request is not a valid {rpc.descriptor.input_type.full_name}", reason="BODY_MALFORMED"
        ) from error
    message.DiscardUnknownFields()
    return Request(message)
