"""ApiKeyService: manages API keys and returns the identity of a caller."""

from datetime import UTC
from typing import Any

from google.protobuf.empty_pb2 import Empty
from vesta_common import trace
from vesta_common.errors import InvalidArgument, Violation
from vesta_common.ids import new_id
from vesta_common.messages import copy_of
from vesta_common.resources.idempotency import once
from vesta_common.resources.pages import read_page
from vesta_common.storage.postgres import Connection
from vesta_contracts.gateway.v1 import (
    ApiKey,
    ApiKeyServiceServicer,
    CreateApiKeyRequest,
    DeleteApiKeyRequest,
    GetApiKeyRequest,
    GetIdentityRequest,
    Identity,
    ListApiKeysRequest,
    ListApiKeysResponse,
    Role,
)

from vesta_gateway.access.caller import PLATFORM_OWNER
from vesta_gateway.access.key_secrets import PREFIX_CHARACTERS, digest_of, new_secret
from vesta_gateway.api.access import AccessApi
from vesta_gateway.store import api_keys, members


class ApiKeyApi(AccessApi, ApiKeyServiceServicer):
    """Implements ApiKeyService."""

    def CreateApiKey(self, request: CreateApiKeyRequest, context: Any) -> ApiKey:
        """Creates a key. A repeated request returns the same key without its secret, which is not stored."""
        now = self._clock.now()
        if request.api_key.HasField("expire_time") and request.api_key.expire_time.ToDatetime(UTC) <= now:
            raise InvalidArgument(
                "api_key.expire_time is in the past; leave it unset for a key that never expires",
                reason="FIELD_INVALID",
                violations=[Violation("api_key.expire_time", "must be in the future")],
            )
        self._ensure_project(request.parent)
        secret = new_secret()
        created: list[ApiKey] = []

        def insert(connection: Connection) -> ApiKey:
            def effect() -> ApiKey:
                members.get(connection, request.api_key.member)
                api_key = copy_of(request.api_key, prefix=secret[:PREFIX_CHARACTERS])
                api_key_id = request.api_key_id or new_id()
                project = request.parent.split("/")[1]
                created[:] = [api_keys.insert(connection, project, api_key_id, api_key, digest_of(secret), now)]
                return created[0]

            created.clear()
            return once(connection, request, ApiKey, effect)

        api_key = self._postgres.run(insert)
        if created:  # the response that `once` stores for repeated requests does not contain the secret
            api_key.secret = secret
        return api_key

    def GetApiKey(self, request: GetApiKeyRequest, context: Any) -> ApiKey:
        """Returns a key without its secret."""
        with self._postgres.transaction() as connection:
            return api_keys.get(connection, request.name)

    def ListApiKeys(self, request: ListApiKeysRequest, context: Any) -> ListApiKeysResponse:
        """Returns a page of keys without their secrets."""
        with self._postgres.transaction() as connection:
            page, token = api_keys.list_page(connection, request.parent.split("/")[1], read_page(request))
        return ListApiKeysResponse(api_keys=page, next_page_token=token)

    def DeleteApiKey(self, request: DeleteApiKeyRequest, context: Any) -> Empty:
        """Revokes a key."""
        with self._postgres.transaction() as connection:
            api_keys.delete(connection, request.name)
        self._invalidate()
        return Empty()

    def GetIdentity(self, request: GetIdentityRequest, context: Any) -> Identity:
        """Returns the identity of the caller."""
        is_platform_owner = trace.caller() == PLATFORM_OWNER
        return Identity(
            member="" if is_platform_owner else trace.caller(),
            platform_owner=is_platform_owner,
            role=Role.Value(f"ROLE_{trace.role().upper()}"),
        )
